//! The directory under an open store: deleted, moved with its parent, and reached by other ways.

use std::os::unix::fs::symlink;

use justonce::{ErrorKind, Options, Store};

use crate::child::{child, is_root, left_out, part_in, plays_to_its_end, tell, under, works};
use crate::common::{ClaimExt, eventually, op};

fn prepared(path: &std::path::Path) -> Store {
    let store = Options::new().open(path).unwrap();
    store.claim(op("done")).wait().unwrap().new().complete("done").wait().unwrap();
    eventually("the next file is ready", || store.stats().generations == 2);
    store
}

#[test]
fn a_directory_that_is_deleted_is_noticed_and_none_is_made_in_its_place() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("store");
    let store = prepared(&path);
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(store.claim(op("lost")).wait().unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(store.claim(op("later")).wait().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
    assert_eq!(store.close().wait().unwrap_err().kind(), ErrorKind::Unknown);
    drop(store);
    assert!(!path.exists());
}

#[test]
fn a_directory_that_is_moved_with_its_parent_is_noticed_and_is_all_there() {
    let home = tempfile::tempdir().unwrap();
    let (parent, elsewhere) = (home.path().join("parent"), home.path().join("elsewhere"));
    let store = prepared(&parent.join("store"));
    std::fs::rename(&parent, &elsewhere).unwrap();
    // It is the same store, whatever it is called by now.
    let again = Options::new().open(elsewhere.join("store")).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyOpen);
    assert_eq!(store.claim(op("lost")).wait().unwrap_err().kind(), ErrorKind::Unknown);
    drop(store);
    assert!(!parent.exists(), "nothing is made where it was");
    let store = Options::new().open(elsewhere.join("store")).unwrap();
    assert_eq!(store.claim(op("done")).wait().unwrap().completed().body(), b"done");
    assert!(store.lookup("acme", "lost").wait().unwrap().is_none());
}

/// The lock is of the directory itself, and not of one of its names.
#[test]
fn a_store_is_open_once_in_all_processes_by_whatever_path() {
    const NAME: &str = "directory::a_store_is_open_once_in_all_processes_by_whatever_path";
    if let Some(place) = part_in(NAME) {
        return tell(&match Options::new().open(place) {
            Ok(_) => "opened".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        });
    }
    let home = tempfile::tempdir().unwrap();
    let (path, link) = (home.path().join("store"), home.path().join("link"));
    let store = prepared(&path);
    symlink(&path, &link).unwrap();
    assert_eq!(plays_to_its_end(child(NAME, &link)), ["AlreadyOpen"]);
    let other_mount = home.path().join("mounted");
    std::fs::create_dir(&other_mount).unwrap();
    let bind = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
    let starter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", bind];
    let paths = [path.to_str().unwrap(), other_mount.to_str().unwrap()];
    let starter = [&starter[..], &paths].concat();
    if is_root() && works(starter[0], &[&starter[1..], &["true"]].concat()) {
        assert_eq!(plays_to_its_end(under(&starter, NAME, &other_mount)), ["AlreadyOpen"]);
    } else {
        left_out("a store mounted at two places", "only root may mount");
    }
    assert!(store.record_once(op("k")).wait().unwrap(), "the first goes on");
    store.close().wait().unwrap();
    assert_eq!(plays_to_its_end(child(NAME, &link)), ["opened"]);
}
