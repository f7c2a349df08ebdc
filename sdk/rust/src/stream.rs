// SPDX-License-Identifier: Apache-2.0

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::{client::QueryStub, error::reason, v1, Error, Result};

// How many queries may wait to be sent before those who ask do.
const SENDING: usize = 64;

/// Asks over one stream, which costs less than a call each. Any number of tasks may ask at once, and each gets
/// its own answer. It lasts until it is dropped, or an error of the stream itself; a broken stream is not opened
/// again, a new one is.
#[derive(Debug)]
pub struct Stream {
    requests: mpsc::Sender<v1::QueryStreamRequest>,
    state: Arc<Mutex<State>>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<v1::QueryResponse>>>,
    // Why the stream has ended.
    end: Option<Error>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    pub(crate) fn open(mut stub: QueryStub) -> Self {
        let (requests, receiver) = mpsc::channel(SENDING);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let reader = tokio::spawn(async move {
            // The server answers the call itself only with the first answer.
            let end = match stub.query_stream(ReceiverStream::new(receiver)).await {
                Ok(answers) => read(answers.into_inner(), &shared).await,
                Err(status) => status.into(),
            };
            let mut state = lock(&shared);
            state.end = Some(end.clone());
            for (_, answer) in state.waiting.drain() {
                let _ = answer.send(Err(end.clone())); // Whoever asked may have gone.
            }
        });
        Stream { requests, state, reader }
    }

    /// Asks and waits for the answer. The time that the query gives itself, and the application's objective, hold
    /// as in a call of its own. To drop the future is to wait no longer.
    pub async fn query(&self, query: v1::QueryRequest) -> Result<v1::QueryResponse> {
        let (answer, receiver) = oneshot::channel();
        let sequence = {
            let mut state = lock(&self.state);
            if let Some(end) = &state.end {
                return Err(end.clone());
            }
            state.last += 1;
            let sequence = state.last;
            state.waiting.insert(sequence, answer);
            sequence
        };
        let _gone = Waiting { state: &self.state, sequence };
        // When it cannot be sent, the reader says why.
        let _ = self.requests.send(v1::QueryStreamRequest { sequence, query: Some(query) }).await;
        receiver.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

// Waiting forgets a query that nobody waits for any more.
struct Waiting<'a> {
    state: &'a Mutex<State>,
    sequence: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.state).waiting.remove(&self.sequence);
    }
}

// Hands answers to those who wait for them, until the stream ends; returns why it has.
async fn read(mut answers: Streaming<v1::QueryStreamResponse>, state: &Mutex<State>) -> Error {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if let Some(waiting) = lock(state).waiting.remove(&answer.sequence) {
                    let _ = waiting.send(answer.result.unwrap_or_default().into_result());
                }
            }
            Ok(None) => return ended(),
            Err(status) => return status.into(),
        }
    }
}

fn ended() -> Error {
    Error::new(Code::Unavailable, reason::UNAVAILABLE, "the server has ended the stream: open another one")
}

/// The messages of a call that answers with many.
#[derive(Debug)]
pub struct Messages<T>(pub(crate) Streaming<T>);

impl<T> Messages<T> {
    /// The next message, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<T>> {
        self.0.message().await.map_err(Error::from)
    }
}
