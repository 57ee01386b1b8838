use std::io::{Cursor, Read};

use fatfs::{FileSystem, FsOptions};
use proptest::prelude::*;

use super::*;

const NAME: &[u8; 11] = b"CIDATA     ";

/// A volume as the crate reads it: the label in both places, and each file.
type Volume = (String, Option<String>, Vec<(String, Vec<u8>)>);

fn read(image: Vec<u8>) -> Volume {
    let volume = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
    let mut files = Vec::new();
    for entry in volume.root_dir().iter() {
        let entry = entry.unwrap();
        let mut content = Vec::new();
        entry.to_file().read_to_end(&mut content).unwrap();
        assert_eq!(entry.len(), content.len() as u64);
        files.push((entry.file_name(), content));
    }
    (volume.volume_label(), volume.read_volume_label_from_root_dir().unwrap(), files)
}

proptest! {
    #[test]
    fn another_reader_finds_what_was_written(
        names in prop::collection::btree_set("[a-z][a-z-]{0,25}", 0..4),
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 4),
        long in 0_usize..4, times in 1_usize..300,
    ) {
        let mut contents = contents;
        contents[long] = contents[long].repeat(times);
        let pairs: Vec<_> = names.iter().map(String::as_str).zip(&contents).collect();
        let files: Vec<FatFile> =
            pairs.iter().map(|(name, content)| (*name, &content[..])).collect();
        let image = image(NAME, &files).unwrap();
        prop_assert_eq!(image.len() % BLOCK, 0);
        let (boot, root, found) = read(image);
        prop_assert_eq!((boot.as_str(), root.as_deref()), ("CIDATA", Some("CIDATA")));
        let wrote = files.iter().map(|(name, content)| (name.to_string(), content.to_vec()));
        prop_assert_eq!(found, wrote.collect::<Vec<_>>());
    }
}

#[test]
fn what_is_too_large_is_no_image() {
    let most = vec![7; CLUSTERS_MAX * SECTOR];
    let (_, _, files) = read(image(NAME, &[("all", &most)]).unwrap());
    assert_eq!(files, [("all".into(), most.clone())]);
    assert_eq!(image(NAME, &[("all", &most), ("more", b"x")]), None);
    let names: Vec<String> = (0..8).map(|at| format!("file-{at}")).collect();
    let files: Vec<FatFile> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(image(NAME, &files[..7]).is_some());
    assert_eq!(image(NAME, &files), None);
}
