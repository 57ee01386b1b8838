//! Bodies of fuzz targets. Each takes any bytes, and panics if this module breaks a promise.

use std::path::{Path, PathBuf};

use super::memory::Memory;
use super::record::{
    decode_host, decode_intent, decode_process, decode_record, encode_host, encode_intent,
    encode_process, encode_record,
};
use super::{Paths, Store};

/// A file that decodes is the same after it is encoded and decoded again.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = decode_record(bytes) {
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
    }
    if let Ok(intent) = decode_intent(bytes) {
        assert_eq!(decode_intent(&encode_intent(&intent)), Ok(intent));
    }
    if let Ok((name, process)) = decode_process(bytes) {
        assert_eq!(decode_process(&encode_process(&name, &process)), Ok((name, process)));
    }
    if let Ok(host) = decode_host(bytes) {
        assert_eq!(decode_host(&encode_host(&host)), Ok(host));
    }
}

/// Where [`state`] puts its bytes.
const FILES: [&str; 7] = [
    "/state/vms/web.json",
    "/run/vms/web.json",
    "/run/vms/.web.json.tmp",
    "/run/intents/web.json",
    "/run/processes/web.json",
    "/run/host.json",
    "/run/lock",
];

/// Any bytes may lie in every place where the daemon looks. The daemon loads the files that make
/// sense and moves the others aside, so that the next load has only good files. Or it says that a
/// newer volnet wrote a file, and changes nothing.
pub fn state(bytes: &[u8]) {
    let mut disk = Memory::new("/run");
    for path in FILES {
        disk.plant(path, bytes);
    }
    let before: Vec<PathBuf> = disk.paths().map(Path::to_owned).collect();
    let mut store = Store::open(disk, Paths::new("/state", "/run")).expect("nothing fails");
    let Ok(mut loaded) = store.load() else {
        assert!(store.into_disk().paths().eq(&before));
        return;
    };
    for record in &loaded.records {
        assert_eq!(record.name.as_str(), "web");
        store.put(record).expect("nothing fails");
    }
    (loaded.set_aside, loaded.in_doubt) = (Vec::new(), Vec::new());
    assert_eq!(store.load().as_ref(), Ok(&loaded));
    assert!(store.into_disk().paths().all(|path| path != Path::new(FILES[2])));
}
