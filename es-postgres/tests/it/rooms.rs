//! The rooms of the crate and who may enter which: `docs/architecture.md`.

use std::fs;
use std::path::Path;

/// The rooms in order: each imports only from those before it.
const ROOMS: [&str; 9] = ["error", "options", "connection", "tables", "read", "others", "write", "engine", "store"];

/// Every `crate::room` in the files of a folder, with the file it stands in.
fn imports(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            imports(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for after in text.split("crate::").skip(1) {
                let room: String = after.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                into.push((path.display().to_string(), room));
            }
        }
    }
}

#[test]
fn a_room_imports_only_from_rooms_before_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let place = |room: &str| ROOMS.iter().position(|name| *name == room);
    let mut found = Vec::new();
    imports(&source, &mut found);
    assert!(found.len() > 50, "the sources are where they were");
    for (file, imported) in found {
        let inside = Path::new(&file).strip_prefix(&source).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let (Some(from), Some(to)) = (place(room.trim_end_matches(".rs")), place(&imported)) else { continue };
        assert!(to <= from, "{file} imports from `{imported}`");
    }
}
