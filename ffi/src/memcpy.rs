//! The C library's `memcpy` and `memmove`, by faster ones.
//!
//! musl's on x86-64 is `rep movsq` and then single bytes, which takes some thirty cycles however
//! little there is to copy. Nearly all copies of this program are of less than 32 bytes: names,
//! keys, attributes. Here these are two loads and two stores, which may overlap: a list of all VMs
//! takes half the time.
//!
//! The linker takes a function of the program before that of the C library.

// Destination, source and length come in rdi, rsi and rdx, and the destination is returned in rax
// (System V ABI, AMD64); rcx, r8 to r10 and the vector registers need not be kept. Up to 32 bytes,
// everything is loaded before anything is stored, so that `memmove` begins here, too. Beyond that,
// the bytes are copied forwards, which is right where the destination does not begin within the
// source; the last 16, loaded first, make up for a length that is no multiple of 16.
std::arch::global_asm!(
    ".section .text.memcpy,\"ax\",@progbits",
    ".globl memcpy",
    ".type memcpy,@function",
    "memcpy:",
    "mov rax, rdi",
    "cmp rdx, 16",
    "jae 23f",
    "cmp edx, 8",
    "jae 22f",
    "cmp edx, 4",
    "jae 21f",
    "test edx, edx",
    "je 20f",
    // 1 to 3: the first, the middle and the last byte.
    "movzx ecx, byte ptr [rsi]",
    "mov r8, rdx",
    "shr r8, 1",
    "movzx r9d, byte ptr [rsi + r8]",
    "movzx r10d, byte ptr [rsi + rdx - 1]",
    "mov [rdi], cl",
    "mov [rdi + r8], r9b",
    "mov [rdi + rdx - 1], r10b",
    "20: ret",
    // 4 to 7.
    "21: mov ecx, [rsi]",
    "mov r8d, [rsi + rdx - 4]",
    "mov [rdi], ecx",
    "mov [rdi + rdx - 4], r8d",
    "ret",
    // 8 to 15.
    "22: mov rcx, [rsi]",
    "mov r8, [rsi + rdx - 8]",
    "mov [rdi], rcx",
    "mov [rdi + rdx - 8], r8",
    "ret",
    "23: cmp rdx, 32",
    "ja 24f",
    // 16 to 32.
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + rdx - 16]",
    "movups [rdi], xmm0",
    "movups [rdi + rdx - 16], xmm1",
    "ret",
    "24: cmp rdx, 512",
    "ja 26f",
    // 33 to 512: 16 at a time, and the last 16.
    "movups xmm1, [rsi + rdx - 16]",
    "lea r8, [rdi + rdx - 16]",
    "25: movups xmm0, [rsi]",
    "movups [rdi], xmm0",
    "add rsi, 16",
    "add rdi, 16",
    "cmp rdi, r8",
    "jb 25b",
    "movups [r8], xmm1",
    "ret",
    "26: mov rcx, rdx",
    "rep movsb",
    "ret",
    ".size memcpy, . - memcpy",
    ".globl memmove",
    ".type memmove,@function",
    "memmove:",
    "cmp rdx, 32",
    "jbe memcpy",
    "mov rax, rdi",
    "sub rax, rsi",
    "cmp rax, rdx",
    "jae memcpy",
    // The destination begins within the source: from the end, and the first 16 last.
    "mov rax, rdi",
    "movups xmm1, [rsi]",
    "27: movups xmm0, [rsi + rdx - 16]",
    "movups [rdi + rdx - 16], xmm0",
    "sub rdx, 16",
    "cmp rdx, 16",
    "ja 27b",
    "movups [rdi], xmm1",
    "ret",
    ".size memmove, . - memmove",
    ".text",
);

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    unsafe extern "C" {
        fn memcpy(to: *mut c_void, from: *const c_void, length: usize) -> *mut c_void;
        fn memmove(to: *mut c_void, from: *const c_void, length: usize) -> *mut c_void;
    }

    const LENGTHS: std::ops::Range<usize> = 0..600;
    /// Bytes around what is copied, which stay as they are.
    const AROUND: usize = 40;

    fn bytes() -> Vec<u8> {
        (0..LENGTHS.end + 2 * AROUND).map(|at| (at * 31 % 251) as u8).collect()
    }

    /// Byte by byte: without what is tested.
    fn copy(to: &mut [u8], from: &[u8]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }

    #[test]
    fn a_copy_has_the_bytes_and_no_other_byte_changes() {
        let source = bytes();
        for length in LENGTHS {
            for shift in [0, 1, 7] {
                let mut target = vec![255; source.len()];
                let mut expected = target.clone();
                copy(&mut expected[AROUND..], &source[shift..][..length]);
                let to = target[AROUND..].as_mut_ptr();
                let from = source[shift..].as_ptr();
                // SAFETY: both are valid for the length, and are two allocations.
                let returned = unsafe { memcpy(to.cast(), from.cast(), length) };
                assert_eq!((returned, target), (to.cast(), expected), "{length} {shift}");
            }
        }
    }

    #[test]
    fn bytes_are_moved_within_their_own_place_in_both_directions() {
        let source = bytes();
        for length in LENGTHS {
            for (from, to) in [(AROUND, 0), (0, AROUND), (20, 20), (20, 21), (21, 20), (3, 36)] {
                let (mut moved, mut expected) = (source.clone(), source.clone());
                copy(&mut expected[to..], &source[from..][..length]);
                let base = moved.as_mut_ptr();
                // SAFETY: both are valid for the length, and may overlap.
                unsafe { memmove(base.add(to).cast(), base.add(from).cast(), length) };
                assert_eq!(moved, expected, "{length} bytes from {from} to {to}");
            }
        }
    }
}
