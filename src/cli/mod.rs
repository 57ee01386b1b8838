//! The verbs, the socket client, tables for people and JSON for scripts.
