//! The rooms of both crates and who may enter which: `docs/architecture.md`.

use std::fs;
use std::path::Path;

/// Every `crate::room` in the files of a folder, with the file it stands in.
fn imports(folder: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            imports(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // What tests use is their own affair.
            let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
            for after in code.split("crate::").skip(1) {
                let room: String = after.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                into.push((path.display().to_string(), room));
            }
        }
    }
}

fn room_of(source: &Path, file: &str) -> String {
    let inside = Path::new(file).strip_prefix(source).unwrap();
    inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Five files of different rooms called each other in circles, so that none of them could be read alone.
#[test]
fn a_room_imports_only_from_rooms_before_it() {
    let sqlite = [
        "error",
        "options",
        "connection",
        "tables",
        "opening",
        "read",
        "others",
        "write",
        "engine",
        "inspect",
        "model",
        "store",
        "builder",
    ];
    let framework = ["panics", "log", "engine", "domain", "consumer", "projection", "reactor", "process", "testing"];
    for (source, order) in [("src", &sqlite[..]), ("../es-framework/src", &framework[..])] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let place = |room: &str| order.iter().position(|name| *name == room);
        let mut found = Vec::new();
        imports(&source, &mut found);
        assert!(found.len() > 50, "the sources are where they were");
        for (file, imported) in found {
            let (Some(from), Some(to)) = (place(&room_of(&source, &file)), place(&imported)) else { continue };
            assert!(to <= from, "{file} imports from `{imported}`");
        }
    }
}
