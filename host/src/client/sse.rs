//! Server-sent events: a parser that takes bytes as they come, and the stream of a job's events.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::ClientError;
use crate::limits;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its kind.
    pub name: String,
    /// Its data.
    pub data: String,
}

impl ServerEvent {
    /// The data as a value.
    ///
    /// # Errors
    /// When it is none of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_str(&self.data)
            .map_err(|error| ClientError::Broken(format!("event `{}` makes no sense: {error}", self.name)))
    }
}

/// Takes bytes and gives events. Comments are skipped; fields other than `event` and `data` are of no use here.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    event: ServerEvent,
    has_data: bool,
}

impl Parser {
    /// The next bytes; gives the events that they complete.
    ///
    /// # Errors
    /// When a line or an event is longer than [`limits::CLIENT_EVENT_BYTES_MAX`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, ClientError> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() + self.event.data.len() > limits::CLIENT_EVENT_BYTES_MAX {
                    return Err(ClientError::Broken("an event is too long".into()));
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
            events.extend(self.line(&line));
        }
        Ok(events)
    }

    fn line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
        None
    }
}

/// The events of a job.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    parser: Parser,
    ready: std::collections::VecDeque<ServerEvent>,
}

impl EventStream {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default(), ready: std::collections::VecDeque::new() }
    }

    /// The next event; none once the stream has ended.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
            let bytes: Bytes = frame.into_data().unwrap_or_default();
            self.ready.extend(self.parser.push(&bytes)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = b"event: state\ndata: {\"a\":1}\n\n: still here\n\nevent: ended\r\ndata: one\r\ndata: two\r\n\r\nevent: lost\n\n";
        let expected = [
            ServerEvent { name: "state".into(), data: "{\"a\":1}".into() },
            ServerEvent { name: "ended".into(), data: "one\ntwo".into() },
        ];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = text.chunks(size).flat_map(|chunk| parser.push(chunk).unwrap()).collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'x'; limits::CLIENT_EVENT_BYTES_MAX + 1]).is_err());
    }
}
