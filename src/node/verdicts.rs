//! Settlements as they cross, see `NativeBus.settle` in ts/native.ts.

use serde_json::Value;

use crate::engine::ask::message::{Answer, Failed};
use crate::engine::consume::{Reply, Verdict, Verdicts};
use crate::engine::error::{Error, Result};
use crate::engine::host::Token;
use crate::engine::options::NackOptions;
use crate::engine::settle::Failure;

/// Token, kind, message, options.
type Row = (Token, String, String, Option<Value>);

/// Successes and failures as verdicts.
pub fn read(done: &[u32], failed: &str) -> Result<Verdicts> {
    let (done, mut verdicts) = (done.to_vec(), Vec::new());
    if failed.is_empty() {
        return Ok(Verdicts { done, others: verdicts });
    }
    let rows: Vec<(Token, String, String, Option<Value>)> = parse_rows(failed)?;
    for (token, kind, message, options) in rows {
        let failure = match kind.as_str() {
            "reply" => {
                verdicts.push((token, Verdict::Replied(read_reply(message, options)?)));
                continue;
            }
            "back" => {
                verdicts.push((token, Verdict::HandBack));
                continue;
            }
            "error" if options.as_ref().is_some_and(|o| o["permanent"] == true) => Failure::Permanent(message),
            "error" => Failure::Error(message),
            "timeout" => Failure::TimedOut(message),
            "malformed" => Failure::Malformed(message),
            // The façade has checked them before it promised anything; what is wrong all the same is a plain nack.
            "nack" => Failure::Nack(options.and_then(|o| NackOptions::read(o).ok()).unwrap_or_default()),
            _ => return Err(Error::internal(format!("a settlement of a kind that is not known: {kind}"))),
        };
        verdicts.push((token, Verdict::Failed(failure)));
    }
    Ok(Verdicts { done, others: verdicts })
}

/// `{ to, id, failed? }` beside the JSON text of the answer, or beside why there is none.
fn read_reply(message: String, options: Option<Value>) -> Result<Reply> {
    let options = options.unwrap_or_default();
    let text = |key: &str| options[key].as_str().map(ToOwned::to_owned);
    let (Some(to), Some(event_id)) = (text("to"), text("id")) else { return Err(Error::internal("a reply without its address")) };
    let answer =
        if options["failed"] == true { Answer::Failed(Failed { error: message, ..Failed::default() }) } else { Answer::Reply(message) };
    Ok(Reply { to, event_id, answer })
}

fn parse_rows(failed: &str) -> Result<Vec<Row>> {
    let rows: Vec<Vec<Value>> = serde_json::from_str(failed).map_err(|e| Error::internal(format!("settlements cannot be read: {e}")))?;
    rows.into_iter()
        .map(|row| {
            let mut row = row.into_iter();
            let token = row.next().and_then(|v| v.as_u64()).and_then(|n| u32::try_from(n).ok());
            let mut text = || row.next().and_then(|v| v.as_str().map(ToOwned::to_owned));
            match (token, text(), text()) {
                (Some(token), Some(kind), Some(message)) => Ok((token, kind, message, row.next())),
                _ => Err(Error::internal("a settlement cannot be read")),
            }
        })
        .collect()
}
