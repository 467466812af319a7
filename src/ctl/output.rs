//! What is printed: tables for people, JSON for programs; results on standard output, errors on standard error.

use serde_json::{Value, json};

use super::client::CtlError;
use super::word;

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// JSON instead of tables.
    pub json: bool,
}

/// Printing to a closed pipe (`| head`) ends quietly: the reader has what it wanted.
pub fn print(text: &str) {
    use std::io::Write;
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

impl Output {
    /// A document, or a sentence for people.
    pub fn show(self, document: &Value, sentence: impl FnOnce() -> String) {
        if self.json { print(&document.to_string()) } else { print(&sentence()) }
    }

    /// A document, laid out for people.
    pub fn document(self, document: &Value) {
        self.show(document, || serde_json::to_string_pretty(document).unwrap_or_default());
    }

    /// An error.
    pub fn error(self, error: &CtlError) {
        if self.json {
            eprintln!("{}", json!({"error": error.to_string()}));
        } else {
            eprintln!("r58: {error}");
        }
    }

    /// Devices.
    pub fn devices(self, devices: &[Value]) {
        if self.json {
            return print(&Value::from(devices.to_vec()).to_string());
        }
        let rows = devices.iter().map(|device| {
            vec![
                word(device, "id").to_owned(),
                word(device, "name").to_owned(),
                word(device, "status").to_owned(),
                figure(device, "cpu_percent", " %"),
                figure(device, "mem_percent", " %"),
                figure(device, "disk_free_gb", " GB"),
                figure(device, "temperature_c", " C"),
                word(&device["programme"], "scene").to_owned(),
                word(device, "version").to_owned(),
                word(device, "last_seen").get(..19).unwrap_or_default().replace('T', " "),
            ]
        });
        let head = ["ID", "NAME", "STATUS", "CPU", "MEM", "DISK", "TEMP", "SCENE", "VERSION", "LAST SEEN"];
        print(&table(&head, rows.collect()));
    }

    /// Something beside the result, for people alone.
    pub fn note(self, text: &str) {
        if !self.json {
            eprintln!("r58: {}", plain(text));
        }
    }

    /// Support bundles of a box.
    pub fn bundles(self, bundles: &[Value]) {
        if self.json {
            return print(&Value::from(bundles.to_vec()).to_string());
        }
        let time = |item: &Value, name: &str| word(item, name).get(..19).unwrap_or_default().replace('T', " ");
        let rows = bundles.iter().map(|bundle| {
            let size = bundle["size_bytes"].as_u64().map_or_else(|| "-".to_owned(), |size| size.to_string());
            vec![
                word(bundle, "id").to_owned(),
                time(bundle, "created_at"),
                word(bundle, "state").to_owned(),
                size,
                time(bundle, "expires_at"),
                word(bundle, "created_by").to_owned(),
                word(bundle, "error").to_owned(),
            ]
        });
        print(&table(&["ID", "CREATED", "STATE", "BYTES", "EXPIRES", "BY", "ERROR"], rows.collect()));
    }

    /// Changes of the audit log.
    pub fn changes(self, changes: &[Value]) {
        if self.json {
            return print(&Value::from(changes.to_vec()).to_string());
        }
        let rows = changes.iter().map(|change| {
            let time = word(change, "at").get(..19).unwrap_or_default().replace('T', " ");
            let words = ["actor", "action", "target", "detail"].map(|name| word(change, name).to_owned());
            [change["seq"].to_string(), time].into_iter().chain(words).collect()
        });
        print(&table(&["NO", "AT", "BY", "WHAT", "TO", "DETAIL"], rows.collect()));
    }

    /// Invitations of a box.
    pub fn invitations(self, page: &Value) {
        if self.json {
            return print(&page["items"].to_string());
        }
        let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let time = |item: &Value, name: &str| word(item, name).get(..19).unwrap_or_default().replace('T', " ");
        let rows = items.iter().map(|item| {
            let words = ["id", "seat", "name", "state", "uses"].map(|name| word(item, name).to_owned());
            words.into_iter().chain([time(item, "expires_at"), word(item, "created_by").to_owned()]).collect()
        });
        let head = ["ID", "SEAT", "NAME", "STATE", "USES", "UNTIL", "BY"];
        print(&table(&head, rows.collect()));
    }

    /// Commands of a page.
    pub fn commands(self, page: &Value) {
        if self.json {
            return print(&page["items"].to_string());
        }
        let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let rows = items.iter().map(|command| {
            vec![
                word(command, "id").to_owned(),
                word(command, "created_at").get(..19).unwrap_or_default().replace('T', " "),
                word(command, "type").to_owned(),
                command["payload"].to_string(),
                word(command, "state").to_owned(),
                word(command, "reason").to_owned(),
            ]
        });
        print(&table(&["ID", "CREATED", "TYPE", "PAYLOAD", "STATE", "REASON"], rows.collect()));
    }

    /// One command.
    pub fn command(self, command: &Value) {
        self.show(command, || one_line(command));
    }

    /// A signed command, ready to be published.
    pub fn signed(self, command: &Value) {
        let (topic, message) = (word(command, "topic"), word(command, "message"));
        if self.json {
            return print(&json!({"topic": topic, "message": message, "id": word(command, "id")}).to_string());
        }
        print(&format!("{topic}\n{message}"));
    }

    /// One update.
    pub fn update(self, event: &str, data: &Value) {
        if self.json {
            return print(&json!({"event": event, "data": data}).to_string());
        }
        let now = chrono::Local::now().format("%H:%M:%S");
        match event {
            "command" => print(&format!("{now} {}", one_line(data))),
            "device" => print(&format!(
                "{now} {} is {}, CPU {}, memory {}, scene {}",
                word(data, "id"),
                word(data, "status"),
                figure(data, "cpu_percent", " %"),
                figure(data, "mem_percent", " %"),
                word(&data["programme"], "scene"),
            )),
            _ => {}
        }
    }
}

fn one_line(command: &Value) -> String {
    let mut line = format!(
        "{} {} {} {}",
        word(command, "device_id"),
        word(command, "type"),
        word(command, "id"),
        word(command, "state")
    );
    for name in ["code", "reason"] {
        if !word(command, name).is_empty() {
            line.push_str(&format!(" ({})", word(command, name)));
        }
    }
    line
}

/// Without control characters, which would reach the terminal.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn figure(document: &Value, name: &str, unit: &str) -> String {
    document.get(name).and_then(Value::as_f64).map_or_else(|| "-".to_owned(), |value| format!("{value:.0}{unit}"))
}

/// Columns as wide as their widest cell. Control characters in what a device said do not reach the terminal.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let clean = |cell: &String| cell.chars().filter(|c| !c.is_control()).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let width = |n: usize| {
        rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).chain([head[n].len()]).max()
    };
    let widths: Vec<usize> = (0..head.len()).filter_map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_a_device_says_reaches_the_terminal_raw() {
        let text =
            table(&["ID", "NAME"], vec![vec!["box-1".into(), "a\u{1b}[31m".into()], vec!["b".into(), "x".into()]]);
        assert_eq!(text, "ID     NAME\nbox-1  a[31m\nb      x");
    }
}
