//! The container files. Nothing can be built from them where the tests run, so they are linted, and what their steps say is done
//! here: by the same commands, with the same environment, on ports and in directories of the test's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::service_manager::{passes, shipped};
use super::support::postgres::Postgres;
use super::support::r58::{PATIENCE, R58, binary};
use super::support::{backstage, environment, free_port, until};

/// The instructions of the Containerfile, each with its word; what goes on over several lines is one.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(shipped("container/Containerfile")).expect("the Containerfile");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let whole = lines.join("\n").replace("\\\n", " ");
    let split = |line: &str| line.split_once(' ').map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()));
    whole.lines().filter_map(split).collect()
}

/// Those with this word.
fn all(word: &str) -> Vec<String> {
    instructions().into_iter().filter(|(own, _)| own == word).map(|(_, rest)| rest).collect()
}

/// The words of an instruction in its form of JSON.
fn words(instruction: &str) -> Vec<String> {
    serde_json::from_str(&all(instruction).pop().expect(instruction)).expect("words in JSON")
}

fn environment_of_the_image() -> BTreeMap<String, String> {
    let set = all("ENV").join(" ");
    set.split_whitespace()
        .filter_map(|one| one.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn compose() -> Value {
    let python = environment::environment().join("bin/python");
    let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let said = passes(Command::new(python).args(["-c", read]).arg(shipped("container/compose.yaml")));
    serde_json::from_str(&said).expect("JSON")
}

/// A value of the compose file with what `example.env` gives for its variables.
fn filled(value: &str) -> String {
    let example = std::fs::read_to_string(shipped("container/example.env")).expect("the example");
    let known: BTreeMap<&str, &str> = example.lines().filter_map(|line| line.split_once('=')).collect();
    let Some((before, rest)) = value.split_once("${") else { return value.to_owned() };
    let (name, after) = rest.split_once('}').expect("an end of the variable");
    let name = name.split(':').next().expect("a name");
    format!("{before}{}{}", known[name], filled(after))
}

#[test]
fn the_container_files_are_sound() {
    let tools = environment::environment().join("bin");
    passes(Command::new(tools.join("hadolint")).arg(shipped("container/Containerfile")));
    let schema = ["--builtin-schema", "vendor.compose-spec"];
    passes(Command::new(tools.join("check-jsonschema")).args(schema).arg(shipped("container/compose.yaml")));
}

#[test]
fn what_an_image_is_built_by_is_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest: toml::Table = std::fs::read_to_string(root.join("Cargo.toml")).expect("it").parse().expect("TOML");
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().expect("a version");
    assert_eq!(all("FROM")[0], format!("docker.io/library/rust:{rust}-slim-bookworm AS build"));

    let runs = all("RUN");
    let steps = |run: &str| run.split("&&").map(|step| step.trim().to_owned()).collect::<Vec<_>>();
    let (build, image) = (steps(&runs[0]), steps(&runs[1]));
    assert!(build.contains(&"make deb".to_owned()), "{build:?}");
    let made = passes(Command::new("make").args(["--dry-run", "--no-print-directory", "deb"]).current_dir(root));
    assert!(made.contains("cargo build --release") && made.contains("cargo deb"), "{made}");
    // From where the package is made to where it is installed from.
    assert!(build.contains(&"cp target/debian/r58_*.deb /r58.deb".to_owned()), "{build:?}");
    assert!(all("COPY").contains(&"--from=build /r58.deb /tmp/r58.deb".to_owned()));

    let mut packages = Vec::new();
    for step in build.iter().chain(&image).filter(|step| step.starts_with("apt-get install")) {
        packages.extend(step.split_whitespace().skip(2).filter(|word| !word.starts_with("--")).map(str::to_owned));
    }
    let (ours, debians): (Vec<_>, Vec<_>) = packages.into_iter().partition(|name| name.starts_with('/'));
    assert_eq!(ours, ["/tmp/r58.deb"]);
    let known = ["install", "--simulate", "--quiet", "--no-install-recommends"];
    passes(Command::new("apt-get").args(known).args(&debians).env("LC_ALL", "C"));

    // Who it runs as comes with the package, and has the directory that its state is in.
    let user = all("USER").pop().expect("a user");
    let users = std::fs::read_to_string(shipped("systemd/r58.conf")).expect("the users");
    assert!(users.lines().any(|line| line.split_whitespace().take(2).eq(["u", user.as_str()])), "{users}");
    let state = &environment_of_the_image()["R58_STATE_DIR"];
    let directory = format!("install --directory --owner {user} --group {user} --mode 0750 {state}");
    assert!(image.contains(&directory), "{image:?}");
    assert_eq!(words("VOLUME"), [state.as_str()]);
}

#[tokio::test]
async fn a_server_runs_on_what_the_container_files_give_it() {
    let _backstage = backstage().await;
    let compose = compose();
    let service = &compose["services"]["fleet"];
    let mut given = environment_of_the_image();
    let more = service["environment"].as_object().expect("its environment");
    given.extend(more.iter().map(|(key, value)| (key.clone(), filled(value.as_str().expect("text")))));

    // What traffic comes in by is what the server listens on.
    let port = |key: &str| given[key].rsplit(':').next().expect("a port").to_owned();
    let (web, broker) = (port("R58__FLEET__LISTEN"), port("R58__FLEET__BROKER__LISTEN"));
    assert_eq!(all("EXPOSE"), [format!("{web} {broker}")]);
    let label = |name: &str| service["labels"][name].as_str().expect(name).to_owned();
    assert_eq!(label("traefik.http.services.fleet.loadbalancer.server.port"), web);
    assert_eq!(label("traefik.tcp.services.mqtt.loadbalancer.server.port"), broker);
    assert_eq!(compose["networks"]["default"]["ipam"]["config"][0]["subnet"], given["R58__FLEET__TRUSTED_PROXIES"]);
    assert_eq!(given["R58__FLEET__DATABASE_URL"], "postgres://r58@postgres/r58");
    let database = &compose["services"]["postgres"]["environment"];
    assert_eq!((&database["POSTGRES_USER"], &database["POSTGRES_DB"]), (&Value::from("r58"), &Value::from("r58")));

    let dir = tempfile::tempdir().expect("a directory");
    let password = dir.path().join("postgres");
    std::fs::write(&password, "not asked for here\n").expect("a password");
    for (key, here) in [
        ("R58_STATE_DIR", dir.path().join("state").display().to_string()),
        ("R58__FLEET__LISTEN", format!("127.0.0.1:{}", free_port())),
        ("R58__FLEET__BROKER__LISTEN", format!("127.0.0.1:{}", free_port())),
        ("R58__FLEET__DATABASE_URL", Postgres::shared().await.database().await),
        ("R58__FLEET__DATABASE_PASSWORD_FILE", password.display().to_string()),
    ] {
        *given.get_mut(key).unwrap_or_else(|| panic!("{key} is not given")) = here;
    }
    let program = |words: &[String]| {
        assert_eq!(words[0], "r58");
        let mut command = Command::new(binary());
        command.args(&words[1..]).current_dir(dir.path());
        command
    };
    let start = [words("ENTRYPOINT"), words("CMD")].concat();
    let mut server = R58::spawn(&start[1], program(&start).env_clear().envs(&given)).await;

    let healthy = all("HEALTHCHECK").pop().expect("a check");
    let (_, healthy) = healthy.split_once("CMD ").expect("its command");
    let healthy = healthy.replace("http://127.0.0.1:8180", &server.fleet);
    let healthy: Vec<String> = serde_json::from_str(&healthy).expect("words in JSON");
    assert!(healthy.contains(&server.fleet), "{healthy:?}");
    let check = || program(&healthy).env_clear().envs(&given).output().expect("a check");
    until(PATIENCE, "health", || async {
        let said = check();
        if said.status.success() { Ok(()) } else { Err(said) }
    })
    .await;

    assert_eq!(all("STOPSIGNAL"), ["SIGTERM"]);
    server.process.signal(Signal::SIGTERM);
    assert!(server.process.ended(PATIENCE).await.success(), "{}", server.process.output());
    assert!(!check().status.success(), "nobody is there any more");
}
