//! The doorbell: an SQS queue to which submit sends the id of each new submission, and on which idle runners wait.
//!
//! A message is a hint. A runner that receives one polls the runner API, which decides. A lost, duplicate or old
//! message costs up to one call.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::aws::{self, Aws, Response, Target};

/// The longest wait of one ReceiveMessage, which is SQS's limit.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// The timeout of a call in addition to its wait.
const MARGIN: Duration = Duration::from_secs(10);

/// A received message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The id of a submission, or `-` if the runner must only poll.
    pub submission_id: String,
    /// The time since it was sent, to the second.
    pub age: Duration,
}

/// The result of one wait: a message or none, or the cause of its failure.
pub type Received = Result<Option<Message>, String>;

/// The queue. A separate thread waits for its messages, so that signals are handled meanwhile.
pub struct Doorbell {
    waits: Sender<Duration>,
}

impl Doorbell {
    /// Opens the queue with this URL, and calls SQS at `target`. `report` gets the result of each wait, and returns `false`
    /// when no more are needed.
    ///
    /// # Errors
    /// If calls cannot be made.
    pub fn new(
        queue_url: String,
        target: Target,
        aws: impl FnOnce(Duration) -> Result<Aws, String>,
        report: impl Fn(Received) -> bool + Send + 'static,
    ) -> Result<Self, String> {
        let (waits, queue) = channel();
        let aws = aws(LONGEST_WAIT + MARGIN)?;
        std::thread::spawn(move || listen(&queue_url, &target, aws, &queue, report));
        Ok(Self { waits })
    }

    /// Waits up to `timeout`, in whole seconds, for a message. The result is reported.
    pub fn receive(&self, timeout: Duration) {
        // The thread ends with the process.
        let _ = self.waits.send(timeout.min(LONGEST_WAIT));
    }
}

fn listen(
    queue_url: &str,
    target: &Target,
    mut aws: Aws,
    waits: &Receiver<Duration>,
    report: impl Fn(Received) -> bool,
) {
    while let Ok(wait) = waits.recv() {
        let received = receive(&mut aws, queue_url, target, wait);
        if !report(received) {
            break;
        }
    }
}

fn receive(aws: &mut Aws, queue_url: &str, target: &Target, wait: Duration) -> Received {
    // Messages are not deleted. A received message stays invisible until it expires.
    let body = json!({
        "QueueUrl": queue_url, "MaxNumberOfMessages": 1, "WaitTimeSeconds": wait.as_secs(),
        "MessageSystemAttributeNames": ["SentTimestamp"],
    });
    let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", "AmazonSQS.ReceiveMessage")];
    let response = aws.post(target, &headers, body.to_string().into_bytes()).map_err(|error| error.to_string())?;
    if response.status != 200 {
        aws.forget_credentials();
        let message = aws::message_of(&response.body).unwrap_or_else(|| "no message".to_owned());
        return Err(format!("{}: {message}", response.status));
    }
    parse(&response).map_err(|error| error.to_string())
}

fn parse(response: &Response) -> Result<Option<Message>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default, rename = "Messages")]
        messages: Option<Vec<SqsMessage>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct SqsMessage {
        body: String,
        #[serde(default)]
        attributes: Attributes,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Attributes {
        sent_timestamp: Option<String>,
    }
    let body: Body = serde_json::from_slice(&response.body)?;
    let Some(message) = body.messages.unwrap_or_default().into_iter().next() else { return Ok(None) };
    // Both times come from AWS's clock.
    let now = response.header("date").and_then(aws::http_date);
    let sent = message.attributes.sent_timestamp.and_then(|millis| millis.parse::<i64>().ok()).map(|sent| sent / 1000);
    let age = now.zip(sent).and_then(|(now, sent)| u64::try_from(now - sent).ok()).unwrap_or_default();
    Ok(Some(Message { submission_id: message.body, age: Duration::from_secs(age) }))
}

#[cfg(test)]
mod tests {
    use ureq::http::HeaderMap;

    use super::*;

    fn parsed(body: &str) -> Option<Message> {
        let mut headers = HeaderMap::new();
        headers.insert("date", "Sun, 09 Sep 2001 01:56:40 GMT".parse().unwrap());
        parse(&Response { status: 200, headers, body: body.as_bytes().to_vec() }).unwrap()
    }

    #[test]
    fn message_age_uses_the_aws_clock() {
        let body = r#"{"Messages": [{"Body": "a-1", "Attributes": {"SentTimestamp": "1000000590250"}}]}"#;
        assert_eq!(parsed(body), Some(Message { submission_id: "a-1".to_owned(), age: Duration::from_secs(10) }));
    }

    #[test]
    fn message_without_time_is_new() {
        let new = Some(Message { submission_id: "-".to_owned(), age: Duration::ZERO });
        assert_eq!(parsed(r#"{"Messages": [{"Body": "-"}]}"#), new);
    }

    #[test]
    fn empty_poll_has_no_message() {
        assert_eq!(parsed("{}"), None);
        assert_eq!(parsed(r#"{"Messages": null}"#), None);
        assert_eq!(parsed(r#"{"Messages": []}"#), None);
    }
}
