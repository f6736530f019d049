//! A shell in a guest, over a virtio port: `obey` of tests/guest/common is its other end.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ui::{Context, Error, Result, Step, fail, indent};

/// For a command that waits for nothing.
const SHORT: Duration = Duration::from_secs(30);

/// How often a wait looks around.
const TICK: Duration = Duration::from_millis(200);

pub struct Agent {
    name: &'static str,
    socket: UnixStream,
    /// What was received of the next line.
    rest: Vec<u8>,
}

impl Agent {
    /// `path` is where the emulator listens.
    pub fn connect(name: &'static str, path: &Path) -> Result<Self> {
        let socket = UnixStream::connect(path).context(path.display())?;
        socket.set_read_timeout(Some(TICK)).context(name)?;
        Ok(Self {
            name,
            socket,
            rest: Vec::new(),
        })
    }

    /// Forgets what an earlier guest has said.
    pub fn forget(&mut self) -> Result<()> {
        self.socket.set_nonblocking(true).context(self.name)?;
        let mut bytes = [0; 4096];
        while self.socket.read(&mut bytes).is_ok_and(|n| n > 0) {}
        self.rest.clear();
        self.socket.set_nonblocking(false).context(self.name)
    }

    /// Waits until the guest obeys.
    pub fn ready(&mut self, step: &mut Step, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while self.line(step, "coming up", end)? != "ready" {}
        Ok(())
    }

    /// What a short command prints; that it fails is an error.
    pub fn run(&mut self, step: &mut Step, command: &str) -> Result<String> {
        self.run_for(step, command, SHORT)
    }

    /// The same of a command that may take as long as `limit`.
    pub fn run_for(&mut self, step: &mut Step, command: &str, limit: Duration) -> Result<String> {
        match self.try_for(step, command, limit)? {
            (0, said) => Ok(said),
            (status, said) => fail(format!(
                "{}: `{command}` ended with {status}:\n{}",
                self.name,
                indent(&said)
            )),
        }
    }

    /// A command's status and what it prints.
    pub fn try_for(
        &mut self,
        step: &mut Step,
        command: &str,
        limit: Duration,
    ) -> Result<(i32, String)> {
        let end = Instant::now() + limit;
        self.socket
            .write_all(format!("{command}\n").as_bytes())
            .context(self.name)?;
        let mut said = String::new();
        loop {
            let line = self
                .line(step, command, end)
                .map_err(|e| Error::new(format!("{e}; so far:\n{}", indent(&said))))?;
            match line.split_at_checked(1) {
                Some(("|", text)) => {
                    said += text;
                    said.push('\n');
                }
                Some(("=", status)) => {
                    said.truncate(said.trim_end().len());
                    return Ok((status.parse().unwrap_or(-1), said));
                }
                _ => return fail(format!("{}: not an answer: {line}", self.name)),
            }
        }
    }

    fn line(&mut self, step: &mut Step, doing: &str, end: Instant) -> Result<String> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.rest.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes) {
                Ok(0) => return fail(format!("{}: the emulator has ended", self.name)),
                Ok(n) => self.rest.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    step.update(&format!("{}: {doing}", self.name));
                    if Instant::now() > end {
                        return fail(format!("{}: no end in time of `{doing}`", self.name));
                    }
                }
                Err(e) => return Err(e).context(self.name),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn answers_end_with_a_status() {
        let path = std::env::temp_dir().join(format!("xtask-agent-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let guest = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut bytes = [0; 64];
            socket.write_all(b"noise\nready\n").unwrap();
            for answer in ["|a\n||b\n=0\n", "|no\n=7\n"] {
                let _ = socket.read(&mut bytes).unwrap();
                socket.write_all(answer.as_bytes()).unwrap();
            }
        });
        let mut agent = Agent::connect("L1", &path).unwrap();
        let step = &mut Step::new("test");
        agent.ready(step, SHORT).unwrap();
        assert_eq!(agent.run(step, "first").unwrap(), "a\n|b");
        let error = agent.run(step, "second").unwrap_err().to_string();
        guest.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("`second` ended with 7") && error.contains("    no"));
        assert!(agent.run(step, "third").is_err());
    }
}
