//! A client of QEMU's machine protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ui::{Context, Error, Result, fail};

/// An emulator that says nothing for so long is taken to hang.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Qmp {
    to: Box<dyn Write + Send>,
    from: Receiver<Value>,
}

impl Qmp {
    /// Takes over the two ends of a monitor: stdin and stdout of an emulator that was started with
    /// `-qmp stdio`, or a socket.
    pub fn new(stdin: impl Write + Send + 'static, stdout: impl Read + Send + 'static) -> Self {
        let (sender, from) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout)
                .lines()
                .map_while(std::io::Result::ok)
            {
                if let Ok(message) = serde_json::from_str(&line) {
                    if sender.send(message).is_err() {
                        break;
                    }
                }
            }
        });
        Self {
            to: Box::new(stdin),
            from,
        }
    }

    /// Waits for the greeting and enters command mode.
    pub fn begin(&mut self) -> Result<()> {
        while self.receive()?.get("QMP").is_none() {}
        self.execute("qmp_capabilities", json!({})).map(drop)
    }

    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.to, "{request}").context(format!("QMP {command}"))?;
        loop {
            let mut answer = self.receive().context(format!("QMP {command}"))?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let text = error["desc"]
                    .as_str()
                    .unwrap_or("error without a description");
                return fail(format!("QMP {command}: {text}"));
            }
            // Anything else is an event.
        }
    }

    /// What a command of the human monitor prints.
    pub fn human(&mut self, line: &str) -> Result<String> {
        let said = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(said.as_str().unwrap_or("").to_owned())
    }

    /// A property of the object at `path`.
    pub fn get(&mut self, path: &str, property: &str) -> Result<Value> {
        self.execute("qom-get", json!({ "path": path, "property": property }))
            .context(format!("property {property} of {path}"))
    }

    fn receive(&mut self) -> Result<Value> {
        self.from.recv_timeout(PATIENCE).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::new(format!(
                "QEMU has not answered for {} s",
                PATIENCE.as_secs()
            )),
            RecvTimeoutError::Disconnected => Error::new("QEMU has ended"),
        })
    }
}
