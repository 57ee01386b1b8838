//! A connection to volnet's socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use volnet::protocol::client;

/// A connection on which replies are read in the order of the requests.
pub(crate) struct Client {
    stream: UnixStream,
    replies: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(socket: &str) -> std::io::Result<Client> {
        let stream = UnixStream::connect(socket)?;
        let replies = BufReader::new(stream.try_clone()?);
        Ok(Client { stream, replies })
    }

    /// Sends what [`message`] and its like made.
    pub(crate) fn send(&mut self, messages: &[u8]) {
        self.stream.write_all(messages).expect("to send a request");
    }

    /// Receives the bytes of one reply.
    pub(crate) fn receive(&mut self) -> String {
        let mut line = String::new();
        let length = self.replies.read_line(&mut line).expect("to receive a reply");
        assert!(length > 0, "volnet closed the connection");
        line
    }

    /// Sends one request and receives its reply, which must not be an error.
    pub(crate) fn call(&mut self, message: &[u8]) -> String {
        self.send(message);
        let reply = self.receive();
        assert_good(&reply);
        reply
    }

    /// How long it takes until the reply to a request is there, which must not be an error.
    pub(crate) fn timed(&mut self, message: &[u8]) -> Duration {
        let start = Instant::now();
        self.send(message);
        let reply = self.receive();
        let took = start.elapsed();
        assert_good(&reply);
        took
    }

    /// Sends requests together and receives all replies. How long that took a request.
    pub(crate) fn pipelined(&mut self, messages: &[Vec<u8>]) -> Duration {
        let together = messages.concat();
        let start = Instant::now();
        self.send(&together);
        let replies: Vec<String> = messages.iter().map(|_| self.receive()).collect();
        let took = start.elapsed();
        replies.iter().for_each(|reply| assert_good(reply));
        took / messages.len() as u32
    }
}

/// Fails when a reply is an error.
pub(crate) fn assert_good(reply: &str) {
    client::decode(reply.as_bytes()).unwrap_or_else(|_| panic!("volnet refused: {reply}"));
}

/// A request that ends with a newline.
pub(crate) fn message(method: &str, parameters: Value) -> Vec<u8> {
    let mut bytes = client::call(&format!("io.volnet.{method}"), parameters, false);
    bytes.push(b'\n');
    bytes
}

/// The request that attaches a VM.
pub(crate) fn create(vm: &str, ephemeral: bool) -> Vec<u8> {
    create_on(vm, ephemeral, json!({ "mode": "bridged" }))
}

/// The same, with its `network` section.
pub(crate) fn create_on(vm: &str, ephemeral: bool, network: Value) -> Vec<u8> {
    let config = json!({ "ephemeral": ephemeral, "network": network });
    message("Create", json!({ "name": vm, "config": config }))
}

/// The request that detaches it.
pub(crate) fn delete(vm: &str) -> Vec<u8> {
    message("Delete", json!({ "name": vm }))
}
