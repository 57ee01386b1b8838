//! The allocator of the C library: freed memory goes back to the system. musl does so by itself;
//! glibc must be told (mallopt(3), malloc_trim(3)).

/// Makes all threads use one heap. By default glibc gives each thread its own heap, which only
/// grows.
pub fn share() {
    // SAFETY: mallopt changes a setting of the allocator and has no other effect.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory to the system.
pub fn trim() {
    // SAFETY: malloc_trim takes no pointer and leaves everything that is allocated as it is.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
