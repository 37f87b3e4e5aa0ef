//! The receiving half of a session: from the transport's bytes to decoded arrivals.

use std::sync::Arc;
use std::time::Duration;

use pontoon_transport::shared::Download;
use pontoon_transport::{Error as LinkError, Receiver, Wake};
use pontoon_wire::frame::{FrameBuffer, MappedBytes, code};

use crate::state::Arrival;

/// The receiving half.
pub(crate) struct Incoming {
    pub receiver: Option<Receiver>,
    pub frames: FrameBuffer,
    pub download: Option<Arc<Download>>,
}

/// Why the session is over, for people.
pub(crate) fn lost(error: &LinkError) -> String {
    match error {
        LinkError::Closed => "the host closed the connection: its worker or the daemon has ended".into(),
        error => format!("the connection to the host failed: {error}"),
    }
}

impl Incoming {
    /// What arrived, and why nothing more will, if so.
    pub fn receive(&mut self, timeout: Option<Duration>) -> (Vec<Arrival>, Option<String>) {
        let mut arrivals = Vec::new();
        let end = self.receive_into(&mut arrivals, timeout).err();
        (arrivals, end)
    }

    fn receive_into(&mut self, arrivals: &mut Vec<Arrival>, timeout: Option<Duration>) -> Result<(), String> {
        self.decode(arrivals)?;
        let Some(receiver) = &mut self.receiver else { return Err("never connected".into()) };
        let received = receiver.receive(self.frames.space()).map_err(|error| lost(&error));
        if matches!(received, Ok(0)) && arrivals.is_empty() && timeout != Some(Duration::ZERO) {
            let woken = receiver.wait(timeout).map_err(|error| lost(&error))?;
            receiver.receive(self.frames.space()).map_err(|error| lost(&error))?;
            if woken == Wake::Hangup {
                let words = receiver.last_words();
                self.decode(arrivals)?;
                self.frames = FrameBuffer::default();
                self.frames.space().extend_from_slice(&words);
                self.decode(arrivals)?;
                return Err(lost(&LinkError::Closed));
            }
        }
        self.decode(arrivals)?;
        received.map(|_| ())
    }

    fn decode(&mut self, arrivals: &mut Vec<Arrival>) -> Result<(), String> {
        let wrong =
            |error: pontoon_wire::DecodeError| format!("the host sent what this client cannot read: {error}");
        while let Some((code, body)) = self.frames.next_frame().map_err(wrong)? {
            arrivals.push(match code {
                code::EVENT => Arrival::Event(pontoon_wire::decode(body).map_err(wrong)?),
                code::MAPPED_BYTES => {
                    let bytes = MappedBytes::decode(body).map_err(wrong)?;
                    Arrival::Bytes { map: bytes.map, at: bytes.at, bytes: bytes.bytes.to_vec() }
                }
                code => return Err(format!("the host sent a frame with the unknown code {code}")),
            });
        }
        Ok(())
    }
}
