//! Watches: streams of answers that can be stalled and broken off.

use super::*;

/// How a watch says last that what it asks for is forgotten.
const FORGOTTEN: &[u8] = b"\"type\":\"ERROR\"}\n";

impl Net {
    /// An answer whose stream can be stalled and closed.
    pub(super) fn tapped(&self, process: &str, answer: Response<ResponseBody>) -> Reply {
        let (head, body) = answer.into_parts();
        if http_body::Body::size_hint(&body).exact().is_some() {
            return Response::from_parts(head, StreamBody::new(body));
        }
        let (open, closed) = oneshot::channel();
        {
            let mut links = self.links();
            let watches = &mut link(&mut links, self.seed, process).open;
            watches.retain(|open| !open.is_closed());
            watches.push(open);
        }
        let tap = Tap {
            net: self.clone(),
            process: process.to_owned(),
            body,
            closed,
        };
        let stream = futures::stream::unfold(Some(tap), |tap| async move {
            let mut tap = tap?;
            match tap.next().await {
                Some(Ok(bytes)) => Some((Ok(bytes), Some(tap))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        });
        Response::from_parts(head, StreamBody::from_stream(stream))
    }
}

struct Tap {
    net: Net,
    process: String,
    body: ResponseBody,
    closed: oneshot::Receiver<()>,
}

impl Tap {
    async fn next(&mut self) -> Option<Result<bytes::Bytes, BoxError>> {
        let frame = tokio::select! {
            biased;
            _ = &mut self.closed => return Some(Err(broken("stream closed"))),
            frame = self.body.frame() => frame?,
        };
        sleep(Duration::from_millis(1)).await;
        loop {
            let until = {
                let mut links = self.net.links();
                let stall = &mut link(&mut links, self.net.seed, &self.process).stall;
                stall.meets(&self.net.judge).then_some(stall.until)
            };
            let Some(until) = until else {
                break;
            };
            sleep_until(until).await;
        }
        let bytes = frame.ok()?.into_data().ok()?;
        if bytes.ends_with(FORGOTTEN) && !crate::judge::is_foreign(&self.process) {
            self.net.judge.saw(Sight::Forgotten);
        }
        Some(Ok(bytes))
    }
}
