//! Settings: flags over environment over `/etc/volnet/config.json` over defaults.
