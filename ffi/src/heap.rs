//! The allocator of the C library: what is freed goes back to the system. That of musl does so by
//! itself; glibc's must be told (mallopt(3), malloc_trim(3)).

/// Keeps all threads to one heap. By default glibc gives each its own, which only grows.
pub fn share() {
    // SAFETY: mallopt changes a setting of the allocator and has no other effect.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives memory that is free back to the system.
pub fn trim() {
    // SAFETY: malloc_trim takes no pointer and leaves everything that is allocated as it is.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
