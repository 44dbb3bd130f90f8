// SPDX-License-Identifier: GPL-2.0

//! The scatterlist of a request's data.
//!
//! Most requests have one segment, and most of the others one for each piece of memory that their
//! bio has. These lists are made here, from the bio. What is left for the block layer is to divide
//! pieces into segments, and to join those of several bios.
//!
//! C header: [`include/linux/scatterlist.h`](srctree/include/linux/scatterlist.h)

use crate::bindings;
use core::ptr::{
    null_mut,
    with_exposed_provenance_mut,
    NonNull, //
};
use kernel::{
    bindings::{scatterlist, sg_table},
    prelude::*, //
};

/// Marks of an element: a link to the next chunk; the last one.
const CHAIN: usize = bindings::SG_CHAIN as usize;
const END: usize = bindings::SG_END as usize;

/// Segments for which a request has room of its own.
const INLINE_SEGMENTS: usize = 2;

/// A scatterlist, with room of its own for few segments.
///
/// # Invariants
///
/// - `table.orig_nents` is zero, or the table was made by `sg_alloc_table_chained()` with `inline`
///   as its first chunk.
/// - If it is zero, no element of `inline` leads to another chunk.
///
/// Zeroes are a list in which there is nothing.
pub(super) struct DataList {
    table: sg_table,
    inline: [scatterlist; INLINE_SEGMENTS],
}

impl DataList {
    /// Makes the list of a request's data.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory for a long list; `EIO` if the data does not fit the list.
    ///
    /// # Safety
    ///
    /// The list must stay where it is until it is [freed](Self::free). `rq` must be a valid request
    /// that the driver has, with data of `segments` segments, which are not zero.
    #[inline]
    pub(super) unsafe fn fill(&mut self, rq: *mut bindings::request, segments: u16) -> Result {
        self.free();
        self.table.sgl = self.inline.as_mut_ptr();
        if usize::from(segments) > INLINE_SEGMENTS {
            self.allocate(segments)?;
        }

        // SAFETY: By the requirement of this function. The list has room for all segments.
        let filled = unsafe {
            Pieces::of(rq).is_some_and(|pieces| pieces.list(self.table.sgl, segments))
                || Self::map(rq, self.table.sgl)
        };
        if !filled {
            self.free();
            return Err(EIO);
        }

        Ok(())
    }

    /// Makes room for many segments. The list stays where it is.
    #[inline(never)]
    fn allocate(&mut self, segments: u16) -> Result {
        let inline = self.inline.as_mut_ptr();

        // SAFETY: By the type invariants nothing is allocated; `inline` has the elements that are
        // said.
        let ret = unsafe {
            bindings::sg_alloc_table_chained(
                &mut self.table,
                segments.into(),
                inline,
                INLINE_SEGMENTS as u32,
            )
        };
        if ret != 0 {
            self.table.orig_nents = 0;
            self.inline = [scatterlist::default(); INLINE_SEGMENTS];
            return Err(ENOMEM);
        }

        Ok(())
    }

    /// Has the block layer make the list. Returns whether it has any segment.
    ///
    /// # Safety
    ///
    /// `rq` must be a valid request that the driver has, and `sgl` a list with room for all
    /// segments of it.
    #[cold]
    unsafe fn map(rq: *mut bindings::request, sgl: *mut scatterlist) -> bool {
        let mut last = null_mut();

        // SAFETY: By the requirement of this function.
        unsafe { bindings::__blk_rq_map_sg(rq, sgl, &mut last) > 0 }
    }

    /// The list, which is valid from when it was filled until it is freed.
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut scatterlist {
        self.table.sgl
    }

    /// Frees what was allocated for the list.
    #[inline]
    pub(super) fn free(&mut self) {
        if self.table.orig_nents != 0 {
            self.free_chunks();
        }
    }

    #[cold]
    #[inline(never)]
    fn free_chunks(&mut self) {
        // SAFETY: By the type invariant the table was made with this first chunk.
        unsafe { bindings::sg_free_table_chained(&mut self.table, INLINE_SEGMENTS as u32) };
        // INVARIANT: Nothing is allocated any more, and the link to what was is gone.
        self.table.orig_nents = 0;
        self.inline = [scatterlist::default(); INLINE_SEGMENTS];
    }
}

/// The pieces of memory that the data of a request consists of.
///
/// # Invariants
///
/// As long as the driver has the request `first` points to an array of pieces, which from `offset`
/// on have at least `len` bytes together.
struct Pieces {
    first: *const bindings::bio_vec,
    /// Where in the first piece the data begins.
    offset: u32,
    /// The length of all the data in bytes.
    len: u32,
}

impl Pieces {
    /// The pieces of a request's data, if they are all in one array.
    ///
    /// # Safety
    ///
    /// `rq` must be a valid request with data, which the driver has.
    #[inline]
    unsafe fn of(rq: *mut bindings::request) -> Option<Self> {
        // SAFETY: By the requirement of this function the request is valid, and so is its bio.
        //
        // INVARIANT: The bio has an array of as many pieces as it needs from its current position
        // on.
        unsafe {
            if (*rq).rq_flags & bindings::RQF_SPECIAL_PAYLOAD != 0 {
                let first = &raw const (*rq).__bindgen_anon_3.special_vec;

                return Some(Self {
                    first,
                    offset: 0,
                    len: (*first).bv_len,
                });
            }

            let bio = NonNull::new((*rq).bio)?.as_ref();
            let at = &bio.bi_iter;

            if bio.bi_next.is_null() {
                Some(Self {
                    first: bio.bi_io_vec.add(at.bi_idx as usize),
                    #[cfg(not(linux_7_2))]
                    offset: at.bi_offset,
                    #[cfg(linux_7_2)]
                    offset: at.bi_bvec_done,
                    len: at.bi_size,
                })
            } else {
                None
            }
        }
    }

    /// Makes a list of the pieces, if each of them is one segment. Returns whether it is so.
    ///
    /// # Safety
    ///
    /// The driver must have the request. `sgl` must be a list with room for `segments` segments.
    #[inline]
    unsafe fn list(self, sgl: *mut scatterlist, segments: u16) -> bool {
        let mut sg = sgl;
        let mut piece = self.first;
        let mut offset = self.offset;
        let mut left = self.len;

        for index in 1..=segments {
            let last = index == segments;

            // SAFETY: There is data left, or this is the first piece, so that by the type invariant
            // `piece` is in the array. By the requirement of this function `sg` is in the list.
            unsafe {
                let len = left.min((*piece).bv_len.wrapping_sub(offset));
                let page = (*piece).bv_page.expose_provenance();

                (*sg).page_link = page | if last { END } else { 0 };
                (*sg).offset = (*piece).bv_offset.wrapping_add(offset);
                (*sg).length = len;
                left = left.wrapping_sub(len);
                offset = 0;
                if last || left == 0 {
                    return last && left == 0;
                }
                piece = piece.add(1);
                sg = next(sg);
            }
        }

        false
    }
}

/// The element of a list after one that is not the last: `sg_next()`.
///
/// # Safety
///
/// `sg` must be an element of a valid list, and not the last one.
#[inline]
unsafe fn next(sg: *mut scatterlist) -> *mut scatterlist {
    // SAFETY: By the requirement of this function another element follows, or a link to it.
    unsafe {
        let next = sg.add(1);
        let link = (*next).page_link;

        if link & CHAIN != 0 {
            with_exposed_provenance_mut(link & !(CHAIN | END))
        } else {
            next
        }
    }
}
