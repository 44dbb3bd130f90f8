// SPDX-License-Identifier: GPL-2.0

//! Attributes of disks in sysfs.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use crate::bindings;
use core::{marker::PhantomData, ptr::null};
use kernel::{
    error::{from_result, VTABLE_DEFAULT_ERROR},
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    sync::ArcBorrow, //
};

/// An attribute of the disks whose data is a `D`.
///
/// Neither function is called after [`remove`](super::disk::Disk::remove) of the disk, which waits
/// for calls to end.
#[vtable]
pub trait Attribute<D> {
    /// The name of the file.
    const NAME: &'static CStr;

    /// The permissions that the file has for this disk, which never change.
    fn mode(data: &D) -> u16;

    /// Writes the value into `out`.
    ///
    /// # Errors
    ///
    /// The reader gets the error.
    fn show(data: &D, out: &mut Page<'_>) -> Result;

    /// Takes what a user wrote. An attribute without this function can't be written.
    ///
    /// # Errors
    ///
    /// The writer gets the error.
    fn store(_data: ArcBorrow<'_, D>, _value: &[u8]) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// Where an attribute writes its value: a page.
pub struct Page<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl Page<'_> {
    /// Appends bytes, which need not be text.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the page is full.
    #[inline(never)]
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result {
        let rest = self.buffer.get_mut(self.len..).unwrap_or_default();

        rest.get_mut(..bytes.len())
            .ok_or(ENOSPC)?
            .copy_from_slice(bytes);
        self.len += bytes.len();

        Ok(())
    }
}

impl fmt::Write for Page<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.write_bytes(s.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// An [`Attribute`] as C knows it.
#[repr(C)]
pub struct Definition<D> {
    attr: bindings::device_attribute,
    mode: fn(&D) -> u16,
}

// SAFETY: A definition never changes.
unsafe impl<D> Sync for Definition<D> {}

impl<D> Definition<D> {
    /// The definition of the attribute `A`.
    pub const fn new<A: Attribute<D>>() -> Self {
        let mut attr: bindings::device_attribute = pin_init::zeroed();

        attr.attr.name = A::NAME.to_bytes_with_nul().as_ptr();
        attr.__bindgen_anon_1.show = Some(Self::show::<A>);
        if A::HAS_STORE {
            attr.__bindgen_anon_2.store = Some(Self::store::<A>);
        }

        Self {
            attr,
            mode: A::mode,
        }
    }

    /// The data of the disk that a device belongs to.
    ///
    /// # Safety
    ///
    /// `dev` must be the device of a disk with a `D` as its data, and the disk must be live for as
    /// long as `'a`.
    unsafe fn data<'a>(dev: *mut bindings::device) -> ArcBorrow<'a, D> {
        // SAFETY: The device of a disk is embedded in its `part0`; see dev_to_disk(). By the
        // requirement of this function the private data is an `Arc<D>`, of which the disk owns a
        // reference.
        unsafe {
            let part0 = kernel::container_of!(dev, bindings::block_device, bd_device);
            ArcBorrow::from_raw((*(*part0).bd_disk).private_data.cast::<D>().cast_const())
        }
    }

    extern "C" fn show<A: Attribute<D>>(
        dev: *mut bindings::device,
        _attr: *mut bindings::device_attribute,
        page: *mut c_char,
    ) -> isize {
        // SAFETY: The attribute is part of a `Group<D>`, with which only disks of `D` are added.
        // sysfs keeps the disk from being removed during the call.
        let data = unsafe { Self::data(dev) };
        // SAFETY: sysfs passes a page for us alone.
        let buffer = unsafe { core::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE_SIZE) };
        let mut out = Page { buffer, len: 0 };

        from_result(|| {
            A::show(&data, &mut out)?;
            Ok(out.len as isize)
        })
    }

    extern "C" fn store<A: Attribute<D>>(
        dev: *mut bindings::device,
        _attr: *mut bindings::device_attribute,
        value: *const c_char,
        count: usize,
    ) -> isize {
        // SAFETY: As in `show()`.
        let data = unsafe { Self::data(dev) };
        // SAFETY: sysfs passes `count` bytes.
        let value = unsafe { core::slice::from_raw_parts(value.cast::<u8>(), count) };

        from_result(|| {
            A::store(data, value)?;
            Ok(count as isize)
        })
    }
}

/// A null-terminated array of the attributes of `N - 1` definitions.
///
/// # Invariants
///
/// Each pointer but the last one is that of a `Definition<D>`, which begins with an attribute.
#[repr(transparent)]
pub struct Attributes<D: 'static, const N: usize>(
    [*const bindings::attribute; N],
    PhantomData<fn(&D)>,
);

// SAFETY: The pointers and what they point to never change.
unsafe impl<D, const N: usize> Sync for Attributes<D, N> {}

impl<D, const N: usize> Attributes<D, N> {
    /// The attributes of the definitions.
    pub const fn new(definitions: &'static [Definition<D>]) -> Self {
        let mut pointers = [null(); N];
        let mut i = 0;

        assert!(definitions.len() + 1 == N);
        while i < definitions.len() {
            pointers[i] = (&raw const definitions[i]).cast();
            i += 1;
        }

        // INVARIANT: The definitions are of `D`.
        Self(pointers, PhantomData)
    }
}

/// The C structure of a group.
///
/// # Invariants
///
/// Its attributes are those of `Definition<D>`s.
#[repr(transparent)]
pub struct RawGroup<D: 'static>(bindings::attribute_group, PhantomData<fn(&D)>);

// SAFETY: The structure and what it points to never change.
unsafe impl<D> Sync for RawGroup<D> {}

impl<D> RawGroup<D> {
    /// A group of the given attributes.
    pub const fn new<const N: usize>(attributes: &'static Attributes<D, N>) -> Self {
        let mut group: bindings::attribute_group = pin_init::zeroed();

        group.__bindgen_anon_1.is_visible = Some(Self::is_visible);
        group.__bindgen_anon_2.attrs = attributes.0.as_ptr().cast_mut().cast();

        // INVARIANT: By the type invariant of `Attributes<D, N>`.
        Self(group, PhantomData)
    }

    extern "C" fn is_visible(
        kobj: *mut bindings::kobject,
        attr: *mut bindings::attribute,
        _index: c_int,
    ) -> bindings::umode_t {
        // SAFETY: By the type invariant the attributes of the group are those of `Definition<D>`s,
        // which they begin. The kobject is that of the device of a disk of `D`, which is being
        // added.
        unsafe {
            let dev = kernel::container_of!(kobj, bindings::device, kobj);
            let definition = &*attr.cast::<Definition<D>>();

            (definition.mode)(&Definition::<D>::data(dev))
        }
    }
}

/// The attributes of disks whose data is a `D`, made by
/// [`disk_attributes!`](crate::disk_attributes).
///
/// Every part of it names the type of the data, so that it can't have attributes for other data.
///
/// # Invariants
///
/// The first pointer is that of a `RawGroup<D>`, the second one is null.
#[repr(transparent)]
pub struct Group<D: 'static>([*const bindings::attribute_group; 2], PhantomData<fn(&D)>);

// SAFETY: The pointers and what they point to never change.
unsafe impl<D> Sync for Group<D> {}

impl<D> Group<D> {
    /// The group in the form that `device_add_disk()` takes.
    pub const fn new(group: &'static RawGroup<D>) -> Self {
        // INVARIANT: As it is written here.
        Self([&raw const group.0, null()], PhantomData)
    }

    pub(crate) fn as_raw(&'static self) -> *mut *const bindings::attribute_group {
        self.0.as_ptr().cast_mut()
    }
}

/// Declares a [`Group`] of disk attributes.
///
/// ```
/// # use kernel_ext::{block::attribute::{Attribute, Page}, disk_attributes};
/// use kernel::fmt::Write;
///
/// struct MyDisk {
///     serial: u32,
/// }
///
/// /// The file `serial`.
/// struct Serial;
///
/// #[vtable]
/// impl Attribute<MyDisk> for Serial {
///     const NAME: &'static CStr = c"serial";
///
///     fn mode(_disk: &MyDisk) -> u16 {
///         0o444
///     }
///
///     fn show(disk: &MyDisk, out: &mut Page<'_>) -> Result {
///         Ok(writeln!(out, "{}", disk.serial)?)
///     }
/// }
///
/// disk_attributes!(static ATTRIBUTES: MyDisk = [Serial]);
/// ```
#[macro_export]
macro_rules! disk_attributes {
    ($vis:vis static $name:ident: $data:ty = [$($attribute:ty),* $(,)?]) => {
        $vis static $name: $crate::block::attribute::Group<$data> = {
            use $crate::block::attribute::{Attributes, Definition, Group, RawGroup};

            const COUNT: usize = [$(stringify!($attribute)),*].len();

            static DEFINITIONS: [Definition<$data>; COUNT] =
                [$(Definition::<$data>::new::<$attribute>()),*];
            static ATTRIBUTES: Attributes<$data, { COUNT + 1 }> = Attributes::new(&DEFINITIONS);
            static GROUP: RawGroup<$data> = RawGroup::new(&ATTRIBUTES);

            Group::new(&GROUP)
        };
    };
}
