//! The files that `setup --cni` installs and `teardown --cni` takes away.
//!
//! | file | what it is for |
//! |---|---|
//! | `/opt/cni/bin/volnet` | a link to this program: engines of containers find their plugin |
//! | `/opt/cni/bin/loopback` | another one, unless somebody else's plugin is there |
//! | `/etc/cni/net.d/10-volnet.conflist` | a first configuration, for people to change |
//!
//! [`super::files`] installs them and takes them away. The configuration names the daemon's socket
//! if a flag does. Otherwise the plugin finds it in the settings.

use std::path::Path;

use serde_json::Value;

use crate::config::Flags;

use super::files::{Contents, Item};

/// The configuration as it is packaged.
const CONFIGURATION: &str = include_str!("../../packaging/10-volnet.conflist");
/// The flag with the daemon's socket, and the key of the configuration.
const SOCKET: &str = "socket";

/// The files, below a root, for this program.
pub(super) fn items(root: &Path, program: &Path, flags: &Flags) -> [Item; 3] {
    let link = |name: &str, yields| {
        let path = root.join("opt/cni/bin").join(name);
        Item { path, contents: Contents::Link(program.into()), notice: "", yields }
    };
    let path = root.join("etc/cni/net.d/10-volnet.conflist");
    let contents = Contents::Text(configuration(flags));
    let conflist = Item { path, contents, notice: "", yields: false };
    [link("volnet", false), link("loopback", true), conflist]
}

/// The configuration with these settings.
fn configuration(flags: &Flags) -> String {
    let Some((_, socket)) = flags.iter().find(|(name, _)| *name == SOCKET) else {
        return CONFIGURATION.into();
    };
    let mut lists: Value = serde_json::from_str(CONFIGURATION).expect("it is packaged so");
    lists["plugins"][0][SOCKET] = socket.into();
    format!("{lists:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_another_socket() {
        let mut flags = Flags::default();
        assert_eq!(configuration(&flags), CONFIGURATION);
        flags.set(SOCKET, "/run/other.sock".into());
        let lists: Value = serde_json::from_str(&configuration(&flags)).unwrap();
        assert_eq!(lists["plugins"][0][SOCKET], "/run/other.sock");
        assert_eq!(lists["plugins"][0]["type"], "volnet");
    }
}
