//! Bundles made from a box of the test's own, opened and read again.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::archive::Entry;
use super::*;
use crate::logs::files::FileLimits;
use crate::supervision::lock;

const MARK: &str = "Qm4rk3r0fS3cr3cy";

struct Planted;

impl BundleSources for Planted {
    fn config(&self) -> Value {
        json!({"crew_password": MARK, "inputs": [{"url": format!("rtsp://u:{MARK}@cam/1")}], "width": 1280})
    }

    fn state(&self) -> Value {
        json!({"guests": [{"token": MARK}], "note": format!("it is {MARK}")})
    }

    fn actors(&self) -> Vec<ActorReport> {
        Vec::new()
    }

    fn graphs(&self) -> Vec<(String, String)> {
        vec![("input-cam1/../x".into(), format!("digraph pipeline {{ location=\\\"rtsp://u:{MARK}@cam/1\\\" }}"))]
    }
}

fn settings(directory: &Path, max_bytes: u64) -> BundleSettings {
    let book = LogBook::default();
    book.keep_in(&directory.join("logs"), FileLimits::default()).unwrap();
    book.redactor().learn(MARK);
    BundleSettings {
        shelf: Shelf::new(directory.join("bundles")),
        max_bytes,
        book,
        log_directory: directory.join("logs"),
        sources: Arc::new(Planted),
        metrics: watch::channel(Metrics::default()).1,
        made: watch::channel(0).0,
    }
}

fn order(id: &str, wants: Wants) -> (MakeBundle, Arc<Mutex<Vec<f64>>>) {
    let told: Arc<Mutex<Vec<f64>>> = Arc::default();
    let heard = told.clone();
    let progress: Progress = Arc::new(move |part| lock(&heard).push(part));
    (MakeBundle { id: CommandId::new(id).unwrap(), wants, progress }, told)
}

/// Everything in an archive, by path.
fn unpacked(settings: &BundleSettings, bundle: &Bundle) -> BTreeMap<String, Vec<u8>> {
    let packed = std::fs::read(settings.shelf.archive(&bundle.id)).unwrap();
    assert_eq!(packed.len() as u64, bundle.size_bytes);
    assert_eq!(hex::encode(Sha256::digest(&packed)), bundle.sha256);
    let mut archive = tar::Archive::new(GzDecoder::new(packed.as_slice()));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(path, content);
    }
    files
}

fn manifest(files: &BTreeMap<String, Vec<u8>>) -> Value {
    serde_json::from_slice(&files["manifest.json"]).unwrap()
}

#[test]
fn a_bundle_holds_what_its_manifest_says_and_none_of_the_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8 << 20);
    // As if it had been written before the secret was learnt.
    let old = format!("{{\"seq\":1,\"message\":\"{MARK}\"}}\nhalf a line with {MARK}");
    std::fs::write(dir.path().join("logs/log-00000000000000000001.jsonl"), old).unwrap();
    let (order, told) = order("01A", Wants { include_recordings: true, ..Wants::default() });
    let bundle = make(&settings, &[json!({"cpu_percent": 3, "token": MARK})], &order).unwrap();
    let files = unpacked(&settings, &bundle);
    for (path, content) in &files {
        assert!(!String::from_utf8_lossy(content).contains(MARK), "{path} holds the secret");
        assert!(!path.contains(".."), "{path}");
    }
    let manifest = manifest(&files);
    let entries: Vec<Entry> = serde_json::from_value(manifest["entries"].clone()).unwrap();
    assert_eq!(entries.len() + 1, files.len());
    for entry in entries {
        let content = &files[&entry.path];
        assert_eq!(content.len() as u64, entry.size_bytes);
        assert_eq!(hex::encode(Sha256::digest(content)), entry.sha256);
    }
    assert!(files.contains_key("graphs/00-input-cam1____x.dot"), "{:?}", files.keys());
    assert_eq!(manifest["left_out"][0]["why"], "this box does not record yet");
    let config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
    assert_eq!(config["width"], 1280, "what is no secret stays");
    let told = lock(&told).clone();
    assert!(told.is_sorted() && told.last() == Some(&1.0), "{told:?}");
}

#[test]
fn the_same_command_makes_one_bundle_and_an_interrupted_one_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 8 << 20);
    let (order, _) = order("01B", Wants::default());
    std::fs::create_dir_all(settings.shelf.directory()).unwrap();
    std::fs::write(settings.shelf.directory().join("01Z.part"), b"cut in the middle").unwrap();
    let first = make(&settings, &[], &order).unwrap();
    assert_eq!(make(&settings, &[], &order).unwrap(), first);
    assert!(!settings.shelf.directory().join("01Z.part").exists());
    assert_eq!(settings.shelf.waiting(Utc::now()).unwrap(), std::slice::from_ref(&first).to_vec());
    settings.shelf.settle(&first, shelf::DELIVERED).unwrap();
    assert!(settings.shelf.waiting(Utc::now()).unwrap().is_empty());
    let again = make(&settings, &[], &order).unwrap();
    assert_eq!(again.state, shelf::DELIVERED, "it is not made a second time");
    assert!(!settings.shelf.archive(&first.id).exists());
}

#[test]
fn what_there_is_no_room_for_is_left_out_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 200 * 1024);
    std::fs::write(dir.path().join("logs/log-00000000000000000001.jsonl"), vec![b'x'; 400 * 1024]).unwrap();
    let (order, _) = order("01C", Wants::default());
    let bundle = make(&settings, &[], &order).unwrap();
    assert!(bundle.size_bytes <= 200 * 1024);
    let manifest = manifest(&unpacked(&settings, &bundle));
    let left_out = manifest["left_out"].as_array().unwrap();
    assert!(left_out.iter().any(|one| one["what"].as_str().unwrap().starts_with("logs/0")), "{manifest}");
}

#[test]
fn a_disk_without_room_is_a_clear_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), u64::MAX / 2);
    let (order, _) = order("01D", Wants::default());
    let error = make(&settings, &[], &order).unwrap_err();
    assert!(matches!(error, BundleError::NoRoom { .. }), "{error}");
    assert_eq!(error.code(), "no_room");
    assert!(error.to_string().contains("MB are free"), "{error}");
}
