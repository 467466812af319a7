//! Tests of signing and verification.

use chrono::TimeZone;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn at() -> DeviceAddress {
    DeviceAddress::new("acme", "box7").unwrap()
}

fn time(s: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_800_000_000 + s, 0).unwrap()
}

fn command() -> Command {
    let args = json!({"scene": "quad", "n": {"b": 1, "a": [1, 2.5, null]}}).as_object().unwrap().clone();
    Command::new(&at(), CommandId::new("01J").unwrap(), 7, "take", args, time(0), time(60))
}

fn signed(signer: &CommandSigner, command: &Command) -> Vec<u8> {
    signer.sign(&mut command.clone()).unwrap()
}

fn ring(signer: &CommandSigner) -> KeyRing {
    KeyRing::new([&signer.public_key()]).unwrap()
}

fn verify(ring: &KeyRing, bytes: &[u8]) -> Result<VerifiedCommand, VerifyError> {
    ring.verify(&at(), &CommandId::new("01J").unwrap(), bytes)
}

#[test]
fn a_signed_command_verifies_whatever_the_order_of_its_keys() {
    let signer = CommandSigner::generate();
    let bytes = signed(&signer, &command());
    let verified = verify(&ring(&signer), &bytes).unwrap();
    assert_eq!(verified.command().op, "take");
    assert_eq!(verified.kid(), signer.kid());

    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let mut entries: Vec<_> = value.as_object().unwrap().iter().collect();
    entries.reverse();
    let body: Vec<String> = entries.iter().map(|(k, v)| format!("{:?} : {v}", k)).collect();
    let shuffled = format!("{{ {} }}", body.join(" ,\n"));
    assert_eq!(verify(&ring(&signer), shuffled.as_bytes()).unwrap().hash(), verified.hash());
}

#[test]
fn fields_of_a_later_version_are_covered_by_the_signature() {
    let signer = CommandSigner::generate();
    let mut later = command();
    later.extra.insert("later".into(), json!({"x": 1}));
    let bytes = signed(&signer, &later);
    assert_eq!(verify(&ring(&signer), &bytes).unwrap().command().extra["later"], json!({"x": 1}));
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    value["later"]["x"] = json!(2);
    assert_eq!(verify(&ring(&signer), value.to_string().as_bytes()), Err(VerifyError::WrongHash));
}

#[test]
fn each_way_to_be_refused_has_its_own_error() {
    let (signer, stranger) = (CommandSigner::generate(), CommandSigner::generate());
    let ring = ring(&signer);
    let bytes = signed(&signer, &command());
    let edit = |f: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        f(&mut value);
        verify(&ring, value.to_string().as_bytes()).unwrap_err()
    };
    assert_eq!(edit(&|v| v["op"] = json!("reboot")), VerifyError::WrongHash);
    assert_eq!(edit(&|v| drop(v.as_object_mut().unwrap().remove("sig"))), VerifyError::Unsigned);
    assert_eq!(edit(&|v| drop(v.as_object_mut().unwrap().remove("hash"))), VerifyError::Unsigned);
    assert_eq!(edit(&|v| v["sig"] = json!("rsa:x:y")), VerifyError::BadSignatureField);
    assert_eq!(edit(&|v| v["sig"] = json!("ed25519:x:AAAA")), VerifyError::BadSignatureField);
    assert_eq!(edit(&|v| v["id"] = json!("other")), VerifyError::WrongTopic);
    assert_eq!(edit(&|v| v["org"] = json!("rival")), VerifyError::Foreign);
    assert_eq!(edit(&|v| v["device"] = json!("box8")), VerifyError::Foreign);
    assert_eq!(edit(&|v| v["v"] = json!(2)).code(), "version");
    assert_eq!(edit(&|v| drop(v.as_object_mut().unwrap().remove("v"))).code(), "malformed");
    assert_eq!(edit(&|v| v["seq"] = json!(-1)).code(), "malformed");
    assert_eq!(verify(&ring, b"").unwrap_err().code(), "malformed");
    assert_eq!(verify(&ring, &vec![b'x'; 10 << 20]).unwrap_err().code(), "oversized");
    assert_eq!(verify(&ring, &signed(&stranger, &command())), Err(VerifyError::UnknownKey));
    let rehashed = edit(&|v| {
        v["op"] = json!("reboot");
        v["hash"] = json!(hash_of(&canonical_bytes(v)));
    });
    assert_eq!(rehashed, VerifyError::WrongSignature);
}

#[test]
fn a_command_of_another_tenant_is_foreign_even_with_the_same_key() {
    let signer = CommandSigner::generate();
    let bytes = signed(&signer, &command());
    let elsewhere = DeviceAddress::new("rival", "box7").unwrap();
    let id = CommandId::new("01J").unwrap();
    assert_eq!(ring(&signer).verify(&elsewhere, &id, &bytes), Err(VerifyError::Foreign));
}

#[test]
fn the_window_is_half_open() {
    let mut command = command();
    command.not_before = Some(time(10));
    assert_eq!(check_window(&command, time(9)), Err(VerifyError::NotBefore(time(10))));
    assert_eq!(check_window(&command, time(10)), Ok(()));
    assert_eq!(check_window(&command, time(59)), Ok(()));
    assert_eq!(check_window(&command, time(60)), Err(VerifyError::Expired(time(60))));
}

#[test]
fn a_key_file_is_private_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("command.pem");
    let made = CommandSigner::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = CommandSigner::load_or_create(&path).unwrap();
    assert_eq!((again.kid(), again.derived_key("x")), (made.kid(), made.derived_key("x")));
    assert_ne!(made.derived_key("x"), made.derived_key("y"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(CommandSigner::load(&path), Err(KeyError::Exposed(_))));
    let broken = dir.path().join("broken.pem");
    fs::write(&broken, "hello").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(CommandSigner::load(&broken), Err(KeyError::Malformed(_))));
    assert!(!format!("{made:?}").contains("key:"));
}

#[test]
fn bad_public_keys_are_refused() {
    let key = |kid: &str, public_key: &str| PublicKey { kid: kid.into(), public_key: public_key.into() };
    assert!(KeyRing::new([&key("a", "???")]).is_err());
    assert!(KeyRing::new([&key("a", "AAAA")]).is_err());
    assert!(KeyRing::new([&key("a", &BASE64.encode([0u8; 32]))]).is_err());
    let good = CommandSigner::generate().public_key();
    assert!(KeyRing::new([&key("a:b", &good.public_key)]).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_can_be_signed_verifies(args in any_json()) {
        let signer = CommandSigner::generate();
        let mut command = command();
        command.args.insert("any".into(), args);
        if let Ok(bytes) = signer.sign(&mut command) {
            prop_assert!(verify(&ring(&signer), &bytes).is_ok());
        }
    }

    #[test]
    fn one_changed_byte_never_verifies_as_another_command(at in 0usize..4096, byte in any::<u8>()) {
        let signer = CommandSigner::generate();
        let mut bytes = signed(&signer, &command());
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(verified) = verify(&ring(&signer), &bytes) {
            let original = verify(&ring(&signer), &signed(&signer, &command())).unwrap();
            prop_assert_eq!(verified.hash(), original.hash());
        }
    }

    #[test]
    fn no_bytes_make_verification_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = verify(&KeyRing::default(), &bytes);
    }
}
