//! A stream from something that calls itself a TURN server, in chunks: messages that fit a datagram and go back on a stream as
//! they were, or a refusal that lasts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use r58_pipelines::forwarder::frame::{Deframer, MAX_MESSAGE, binding_refused, put, role};

fuzz_target!(|bytes: &[u8]| {
    let (mut deframer, mut again) = (Deframer::default(), Vec::new());
    for chunk in bytes.chunks(bytes.first().map_or(1, |first| 1 + usize::from(*first))) {
        deframer.push(chunk);
        loop {
            match deframer.next_message() {
                Ok(None) => break,
                Err(error) => {
                    deframer.push(&[0; 64]);
                    assert_eq!(deframer.next_message(), Err(error));
                    return;
                }
                Ok(Some(message)) => {
                    assert!(message.len() <= MAX_MESSAGE);
                    let _ = (role(&message), binding_refused(&message));
                    let mut stream = Default::default();
                    put(&message, &mut stream).expect("a message of a stream fits one");
                    again.extend_from_slice(&stream);
                }
            }
        }
    }
    assert!(again.len() <= bytes.len());
});
