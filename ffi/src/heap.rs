//! The allocator: that of the C library, behind a few free blocks of each size.
//!
//! A request makes some thousand allocations that live for microseconds. musl takes a lock for each
//! and for its end, and gives a page back to the system as soon as nothing is left on it, so that
//! the next request has the kernel map and clear it again. So the thread that serves ([`keep`])
//! keeps what it frees, up to `KEPT_MAX` bytes, and allocates from that first. [`trim`] gives all
//! of it back. Other threads keep nothing, and nothing is lost when they end.
//!
//! Blocks have the sizes of the slots of musl, so one that is rounded up takes no more memory, and
//! each block is one of the C library's own, whoever allocates and frees it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// The most bytes of free blocks that are kept.
const KEPT_MAX: usize = 64 * 1024;
/// Bytes of the blocks: the slots of musl (mallocng/malloc.c, `__malloc_size_classes`, in units of
/// 16 bytes), less the four bytes that musl needs.
const SIZES: [usize; 32] = {
    let units = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 31, 36, 42, 50, 63, 72, 84, 102, 127,
        146, 170, 204, 255, 292, 340, 409, 511,
    ];
    let mut sizes = [0; 32];
    let mut class = 0;
    while class < 32 {
        sizes[class] = units[class] * 16 - 4;
        class += 1;
    }
    sizes
};
/// The largest of them.
const SIZE_MAX: usize = SIZES[31];
/// The largest alignment of those. Blocks of the C library are aligned to this at least.
const ALIGN_MAX: usize = 8;
/// The class of a size, by the units that it takes beyond the first.
const CLASSES: [u8; 512] = {
    let mut classes = [0; 512];
    let (mut unit, mut class) = (0, 0);
    while unit < 511 {
        if unit * 16 + 12 > SIZES[class] {
            class += 1;
        }
        classes[unit] = class as u8;
        unit += 1;
    }
    classes
};

/// The allocator of the program.
#[derive(Debug)]
pub struct Heap;

/// The free blocks of a thread.
struct Kept {
    /// Whether it keeps any.
    keeps: Cell<bool>,
    bytes: Cell<usize>,
    /// The first block of each class. A block begins with the address of the next one.
    first: [Cell<*mut u8>; SIZES.len()],
}

thread_local! {
    static KEPT: Kept = const {
        Kept {
            keeps: Cell::new(false),
            bytes: Cell::new(0),
            first: [const { Cell::new(ptr::null_mut()) }; SIZES.len()],
        }
    };
}

impl Kept {
    /// A block of this class; null if there is none.
    fn take(&self, class: usize) -> *mut u8 {
        let block = self.first[class].get();
        if !block.is_null() {
            // SAFETY: `put` has written the address of the next block to the beginning of this one,
            // which nobody else has.
            self.first[class].set(unsafe { *block.cast::<*mut u8>() });
            self.bytes.set(self.bytes.get() - SIZES[class]);
        }
        block
    }

    /// Keeps a block of this class, and says whether it does.
    ///
    /// # Safety
    /// Nobody uses the block any more.
    unsafe fn put(&self, class: usize, block: *mut u8) -> bool {
        let bytes = self.bytes.get() + SIZES[class];
        if !self.keeps.get() || bytes > KEPT_MAX {
            return false;
        }
        // SAFETY: the smallest block holds an address, all are aligned for one, and nobody uses it.
        unsafe { *block.cast::<*mut u8>() = self.first[class].get() };
        self.first[class].set(block);
        self.bytes.set(bytes);
        true
    }
}

/// The class of the block for a layout; `None` if the C library has it alone.
fn class_of(layout: Layout) -> Option<usize> {
    let ours = layout.size() <= SIZE_MAX && layout.align() <= ALIGN_MAX;
    ours.then(|| CLASSES[(layout.size() + 3) / 16].into())
}

/// What the C library is asked for.
fn layout_of(class: usize) -> Layout {
    Layout::from_size_align(SIZES[class], ALIGN_MAX).expect("a small size")
}

// SAFETY: a block is one of `System`'s, of the size of its class, which holds the layout. It is in
// the list of one thread or with one user: `put` comes from `dealloc` alone, and `take` removes.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        match KEPT.with(|kept| kept.take(class)) {
            // SAFETY: the size is not 0.
            block if block.is_null() => unsafe { System.alloc(layout_of(class)) },
            block => block,
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if class_of(layout).is_none() {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promise; a block that is there has the bytes of its layout.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: the caller's promise; such a block was allocated by `System` alone.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: the caller does not use it any more, and `System` made it with this layout.
        unsafe {
            if !KEPT.with(|kept| kept.put(class, block)) {
                System.dealloc(block, layout_of(class));
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is valid with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class_of(layout), class_of(wanted)) {
            (Some(has), Some(wants)) if has == wants => block,
            // SAFETY: the caller's promise; such a block was allocated by `System` alone.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            // SAFETY: the caller's promise; the new block is another one, and both have what is
            // copied.
            (_, _) => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    new.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}

/// Makes all threads use one heap, and this one keep free blocks. By default glibc gives each
/// thread its own heap, which only grows.
pub fn keep() {
    KEPT.with(|kept| kept.keeps.set(true));
    // SAFETY: mallopt changes a setting of the allocator and has no other effect.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory to the system. musl does so by itself when blocks are freed; glibc must be
/// told (malloc_trim(3)).
pub fn trim() {
    KEPT.with(|kept| {
        for class in 0..SIZES.len() {
            loop {
                let block = kept.take(class);
                if block.is_null() {
                    break;
                }
                // SAFETY: it is in no list any more, and `System` made it with this layout.
                unsafe { System.dealloc(block, layout_of(class)) };
            }
        }
    });
    // SAFETY: malloc_trim takes no pointer and leaves everything that is allocated as it is.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks with what is in them.
    struct Used(Vec<(*mut u8, Layout, u8)>);

    impl Used {
        fn add(&mut self, size: usize, align: usize, byte: u8) {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not 0, and the block has it.
            let block = unsafe {
                let block = Heap.alloc(layout);
                block.write_bytes(byte, size);
                block
            };
            assert_eq!(block.addr() % align, 0);
            self.0.push((block, layout, byte));
        }

        fn resize(&mut self, at: usize, size: usize) {
            let (block, layout, byte) = self.0[at];
            self.check(at, size.min(layout.size()));
            // SAFETY: the block is of this layout.
            let block = unsafe {
                let block = Heap.realloc(block, layout, size);
                assert!(
                    std::slice::from_raw_parts(block, size.min(layout.size()))
                        .iter()
                        .all(|it| *it == byte)
                );
                block.write_bytes(byte, size);
                block
            };
            self.0[at] = (block, Layout::from_size_align(size, layout.align()).unwrap(), byte);
        }

        fn check(&self, at: usize, size: usize) {
            let (block, _, byte) = self.0[at];
            // SAFETY: the block has at least this size, all of it written.
            let bytes = unsafe { std::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|it| *it == byte));
        }

        fn remove(&mut self, at: usize) {
            self.check(at, self.0[at].1.size());
            let (block, layout, _) = self.0.swap_remove(at);
            // SAFETY: the block is of this layout.
            unsafe { Heap.dealloc(block, layout) };
        }
    }

    #[test]
    fn each_size_has_the_smallest_class_that_holds_it() {
        for size in 1..=SIZE_MAX {
            let class = class_of(Layout::from_size_align(size, 8).unwrap()).unwrap();
            assert!(SIZES[class] >= size && (class == 0 || SIZES[class - 1] < size), "{size}");
        }
        assert_eq!(class_of(Layout::from_size_align(SIZE_MAX + 1, 8).unwrap()), None);
        assert_eq!(class_of(Layout::from_size_align(64, 64).unwrap()), None);
    }

    #[test]
    fn blocks_are_used_again_and_never_by_two() {
        let mut seed = 7_u64;
        let mut dice = |sides: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % sides
        };
        let mut used = Used(Vec::new());
        let kept = |field: fn(&Kept) -> usize| KEPT.with(field);
        for round in 0..200_000_u32 {
            if round == 1000 {
                assert_eq!(kept(|kept| kept.bytes.get()), 0, "nobody has asked for it");
                keep();
            }
            let most = [16, 300, 9000, 100_000][dice(4)];
            let size = 1 + dice(most);
            match dice(5) {
                0 | 1 if used.0.len() < 300 => used.add(size, 1 << dice(7), round as u8),
                2 if !used.0.is_empty() => used.resize(dice(used.0.len()), size),
                _ if !used.0.is_empty() => used.remove(dice(used.0.len())),
                _ => {}
            }
            assert!(kept(|kept| kept.bytes.get()) <= KEPT_MAX);
        }
        while !used.0.is_empty() {
            used.remove(0);
        }
        assert!(kept(|kept| kept.bytes.get()) > KEPT_MAX / 2);
        trim();
        assert_eq!(kept(|kept| kept.bytes.get()), 0);
    }

    #[test]
    fn what_is_zeroed_is_zero_also_if_it_was_used() {
        keep();
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: the block is of this layout.
        unsafe {
            let block = Heap.alloc(layout);
            block.write_bytes(1, 100);
            Heap.dealloc(block, layout);
            let again = Heap.alloc_zeroed(layout);
            assert_eq!(again, block);
            assert!(std::slice::from_raw_parts(again, 100).iter().all(|byte| *byte == 0));
            Heap.dealloc(again, layout);
        }
        trim();
    }
}
