//! The inputs of the engine's corpus are what their names say.

use std::fs;

use super::*;

/// What happens with each input. Whoever reads more choices than before moves all that come after
/// them: then other things happen, or none, and the input has to be mended.
const STORIES: &str = "tests/golden/engine/stories.txt";

#[test]
fn inputs_tell_the_stories_that_they_are_named_for() {
    let mut paths: Vec<_> =
        fs::read_dir("fuzz/corpus/engine").unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut told = String::new();
    for path in paths {
        told += &format!("{}\n", path.file_name().unwrap().to_str().unwrap());
        for event in played(&fs::read(&path).unwrap()).story() {
            told += &format!("    {event}\n");
        }
    }
    let meant = fs::read_to_string(STORIES).unwrap();
    assert!(told == meant, "the stories are now\n{told}");
}
