//! What a fleet server has besides its state: its configuration, the files that this names, and variables.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::FleetSettings;

/// How the names of variables begin that win over the file.
const VARIABLES: &str = "R58__FLEET__";

/// Files by their absolute paths, variables by name (`$R58__FLEET__...`), never what is in them.
pub fn elsewhere(config: Option<&Path>, fleet: &FleetSettings) -> Vec<String> {
    let mut files: Vec<PathBuf> = config.map(Path::to_owned).into_iter().collect();
    if let Ok(settings) = serde_json::to_value(fleet) {
        collect(&settings, &mut files);
    }
    let absolute = |file: PathBuf| std::path::absolute(&file).unwrap_or(file).display().to_string();
    let mut found: Vec<String> = files.into_iter().map(absolute).collect();
    found.extend(std::env::vars_os().filter_map(|(name, _)| {
        let name = name.into_string().ok()?;
        name.starts_with(VARIABLES).then(|| format!("${name}"))
    }));
    found.sort();
    found.dedup();
    found
}

/// Whether such a file is there, or such a variable set.
pub fn is_here(place: &str) -> bool {
    match place.strip_prefix('$') {
        Some(name) => std::env::var_os(name).is_some(),
        None => Path::new(place).exists(),
    }
}

/// Every setting that names a file, whatever table it stands in.
fn collect(settings: &Value, files: &mut Vec<PathBuf>) {
    for (key, value) in settings.as_object().into_iter().flatten() {
        match value {
            Value::String(path) if key.ends_with("_file") || key == "tls_cert" || key == "tls_key" => {
                files.push(path.into());
            }
            table => collect(table, files),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_configuration_names_is_found_and_no_password() {
        let text = r#"
            database_password_file = "/etc/r58/database-password"
            database_url = "postgres://r58:secret@db/r58"
            [tls]
            cert_file = "/etc/r58/server.pem"
            key_file = "/etc/r58/server.key"
            client_ca_file = "ca.pem"
            crl_file = "/etc/r58/crl.pem"
            [broker]
            tls_cert = "/etc/r58/server.pem"
            [smtp]
            password_file = "/etc/r58/smtp-password"
            "#;
        let fleet: FleetSettings = toml::from_str(text).unwrap();
        let found = elsewhere(Some(Path::new("/etc/r58/fleet.toml")), &fleet);
        let found: Vec<_> = found.iter().filter(|place| place.starts_with("/etc/")).collect();
        let wanted = ["crl.pem", "database-password", "fleet.toml", "server.key", "server.pem", "smtp-password"];
        assert_eq!(found, wanted.map(|name| format!("/etc/r58/{name}")).iter().collect::<Vec<_>>());
        let all = elsewhere(None, &fleet).join(" ");
        assert!(all.contains("/ca.pem") && !all.contains("secret"), "{all}");
        assert!(is_here("/etc") && !is_here("/etc/r58/nowhere") && is_here("$PATH") && !is_here("$R58__NOWHERE"));
    }
}
