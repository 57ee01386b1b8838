//! The only imperative shell: wait, decode, decide, execute, store, reply.
