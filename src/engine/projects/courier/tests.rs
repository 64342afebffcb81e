//! How a sending is answered.

use serde_json::json;

use super::*;

fn results(results: &[Result<&str, Code>]) -> Vec<(String, Result<String>)> {
    let result = |(i, result): (usize, &Result<&str, Code>)| {
        (format!("p{i}"), result.map(str::to_owned).map_err(|code| Error::new(code, "why").with("detail", i)))
    };
    results.iter().enumerate().map(result).collect()
}

#[test]
fn an_answer_is_the_id_or_what_became_of_each_copy() {
    assert_eq!(answer(results(&[Ok("id")])).unwrap(), "id");
    assert_eq!(answer(results(&[Ok("id"), Ok("id")])).unwrap(), "id");
    assert_eq!(answer(Vec::new()).unwrap_err().code, Code::Internal);
    let alone = answer(results(&[Err(Code::StreamFull)])).unwrap_err();
    assert!(alone.code == Code::StreamFull && alone.retryable && !alone.details.contains_key("results"));
    let part = answer(results(&[Ok("id"), Err(Code::Connection), Err(Code::StreamFull)])).unwrap_err();
    assert_eq!((part.code, part.retryable), (Code::Connection, true));
    assert!(part.message.contains("2 of its 3 targets"), "{part}");
    assert_eq!(part.details["results"][0], json!({ "target": "p0", "id": "id" }));
    assert_eq!(part.details["results"][2]["error"]["code"], "ERR_STREAM_FULL");
    // Trying again would not help all of them.
    assert!(!answer(results(&[Err(Code::Connection), Err(Code::Redis)])).unwrap_err().retryable);
}
