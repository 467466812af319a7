//! Live updates on the command line: server-sent events, read line by line, taken up again when the stream ends.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

use super::client::{Client, CtlError};
use super::output::Output;
use super::{segment, word};

/// Pause before a stream that ended is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest update; a line beyond it is no update.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Prints updates until interrupted.
///
/// # Errors
/// When the server refuses; one that is away later is waited for.
pub async fn run(client: &mut Client, output: Output, device: Option<&str>) -> Result<(), CtlError> {
    if let Some(device) = device {
        // A name that does not exist would be silence for ever.
        client.get(&format!("/devices/{}", segment(device))).await?;
    }
    let mut response = client.stream("/events").await?;
    loop {
        let mut lines = Events::new(response);
        while let Some((event, data)) = lines.next().await {
            let of = if event == "device" { word(&data, "id") } else { word(&data, "device_id") };
            if event != "hello" && device.is_none_or(|wanted| wanted == of) {
                output.update(&event, &data);
            }
        }
        response = loop {
            tokio::time::sleep(AGAIN).await;
            match client.stream("/events").await {
                Ok(response) => break response,
                Err(CtlError::Unreachable(_)) => {}
                Err(error) => return Err(error),
            }
        };
    }
}

/// Prints a command's states until it has ended, and answers with it.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn until_finished(client: &mut Client, output: Output, id: &str) -> Result<Value, CtlError> {
    let path = format!("/commands/{}", segment(id));
    loop {
        // Listen first, then read: what happens in between is seen twice, never missed.
        let mut events = Events::new(client.stream("/events").await?);
        let command = client.get(&path).await?;
        if !command["finished_at"].is_null() {
            return Ok(command);
        }
        while let Some((event, data)) = events.next().await {
            if event != "command" || word(&data, "id") != id {
                continue;
            }
            if !data["finished_at"].is_null() {
                return Ok(data);
            }
            if !output.json {
                output.update(&event, &data);
            }
        }
    }
}

/// Reads events from a stream.
pub struct Events {
    response: Response,
    buffer: Vec<u8>,
    event: String,
}

impl Events {
    /// The events of an answer.
    pub fn new(response: Response) -> Self {
        Self { response, buffer: Vec::new(), event: String::new() }
    }

    /// The next event with JSON data; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                if let Some(event) = line.strip_prefix("event: ") {
                    event.clone_into(&mut self.event);
                } else if let Some(data) = line.strip_prefix("data: ")
                    && let Ok(data) = serde_json::from_str(data)
                {
                    return Some((std::mem::take(&mut self.event), data));
                }
            }
            if self.buffer.len() > MAX_LINE {
                return None;
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}
