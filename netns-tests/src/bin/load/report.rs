//! What came of a load.

use serde_json::{Value, json};
use std::io;
use std::time::{Duration, Instant};

pub(crate) struct Times {
    /// Of connect(2) alone. None where the connection was there.
    pub(crate) connect: Option<Duration>,
    /// From the beginning of a connection to its end, or from a request to its answer where connections stay.
    pub(crate) answer: Duration,
}

pub(crate) struct Report {
    end: Instant,
    done: u64,
    /// Before the end, of those. The others had begun before it.
    done_in_time: u64,
    failed: u64,
    connects: Vec<Duration>,
    answers: Vec<Duration>,
}

impl Report {
    pub(crate) fn until(end: Instant) -> Self {
        Self { end, done: 0, done_in_time: 0, failed: 0, connects: Vec::new(), answers: Vec::new() }
    }

    /// What has come of one, just now.
    pub(crate) fn note(&mut self, one: io::Result<Times>) {
        match one {
            Ok(Times { connect, answer }) => {
                self.done += 1;
                self.done_in_time += u64::from(Instant::now() <= self.end);
                self.connects.extend(connect);
                self.answers.push(answer);
            }
            Err(error) => {
                self.failed += 1;
                eprintln!("load: {error}");
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.done += other.done;
        self.done_in_time += other.done_in_time;
        self.failed += other.failed;
        self.connects.extend(other.connects);
        self.answers.extend(other.answers);
    }

    /// `seconds` is how long it was meant to take.
    pub(crate) fn json(mut self, seconds: u64) -> Value {
        json!({
            "done": self.done,
            "failed": self.failed,
            "each_second": self.done_in_time as f64 / seconds as f64,
            "connect_us": middle_and_late(&mut self.connects),
            "answer_us": middle_and_late(&mut self.answers),
        })
    }
}

/// The median and the 99th of 100, in microseconds.
fn middle_and_late(times: &mut [Duration]) -> Option<[f64; 2]> {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).map(|time| time.as_secs_f64() * 1e6);
    Some([at(50)?, at(99)?])
}
