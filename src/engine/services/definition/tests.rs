use serde_json::{Value, json};

use super::*;

fn given() -> Value {
    json!({
        "name": "orders", "endpoint": "http://10.0.0.7:8080/api/", "version": "1.2.0-rc.1",
        "capabilities": [{ "name": "task-management", "version": "1.0.0", "inputs": { "events": ["order.*"] }, "description": "d" }],
        "health": { "status": "healthy", "lastCheck": 5 },
        "metadata": { "tags": ["a"], "environment": "production" },
    })
}

fn read(value: Value) -> Result<Definition> {
    Definition::read(value, 1000, 300_000).map(|given| given.definition)
}

/// Changes one place of [`given`]; null removes it.
fn with(path: &str, value: Value) -> Value {
    let mut service = given();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = service.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key);
    } else {
        parent.insert(key.to_owned(), value);
    }
    service
}

#[test]
fn a_definition_stays_the_same_over_the_store() {
    let definition = read(given()).unwrap();
    assert_eq!(Definition::from_text("orders", &definition.to_text()).unwrap(), definition);
    assert_eq!((definition.registered_at_ms, definition.updated_at_ms, definition.life_ms), (1000, 1000, 300_000));
    let found = definition.to_json();
    let again = read(found).unwrap();
    assert!(again.is_same_as(&definition));
}

#[test]
fn what_is_wrong_is_refused_with_its_path() {
    let long = "x".repeat(5000);
    for (path, value, named) in [
        ("/name", json!(null), "service.name"),
        ("/name", json!("a b"), "service.name"),
        ("/name", json!("x".repeat(129)), "service.name"),
        ("/endpoint", json!(null), "service.endpoint"),
        ("/endpoint", json!("10.0.0.7"), "service.endpoint"),
        ("/endpoint", json!("http://"), "service.endpoint"),
        ("/endpoint", json!("mailto:a@b"), "service.endpoint"),
        ("/endpoint", json!("http://user:secret@host/"), "service.endpoint"),
        ("/endpoint", json!("http://host/?a=b"), "service.endpoint"),
        ("/endpoint", json!("http://host?"), "service.endpoint"),
        ("/endpoint", json!("http://host#"), "service.endpoint"),
        ("/endpoint", json!("http:host"), "service.endpoint"),
        ("/endpoint", json!("http:/host"), "service.endpoint"),
        ("/endpoint", json!("http:\\\\host"), "service.endpoint"),
        ("/endpoint", json!("http://host\\@evil.example"), "service.endpoint"),
        ("/endpoint", json!("http://host/a b"), "service.endpoint"),
        ("/endpoint", json!(" http://host"), "service.endpoint"),
        ("/endpoint", json!("http://ho\nst"), "service.endpoint"),
        ("/endpoint", json!("http://host/\r\nx: y"), "service.endpoint"),
        ("/endpoint", json!("ht\ttp://host"), "service.endpoint"),
        ("/endpoint", json!(7), "service.endpoint"),
        ("/endpoint", json!(format!("http://host/{long}")), "service.endpoint"),
        ("/version", json!("1"), "service.version"),
        ("/version", json!("v1.0.0"), "service.version"),
        ("/capabilities", json!(null), "service.capabilities"),
        ("/capabilities", json!({}), "service.capabilities"),
        ("/capabilities/0/name", json!(null), "service.capabilities[0].name"),
        ("/capabilities/0/version", json!("latest"), "service.capabilities[0].version"),
        ("/capabilities/0/inputs", json!([]), "service.capabilities[0].inputs"),
        ("/capabilities/0/description", json!(long), "service.capabilities[0].description"),
        ("/capabilities/0/input", json!({}), "service.capabilities[0].input"),
        ("/metadata/tags", json!("a"), "service.metadata.tags"),
        ("/metadata/tags", json!([1]), "service.metadata.tags[0]"),
        ("/metadata/tags", json!(vec!["t"; 101]), "service.metadata.tags"),
        ("/metadata/tags", json!([long]), "service.metadata.tags[0]"),
        ("/metadata/healthPath", json!("health"), "service.metadata.healthPath"),
        ("/metadata/eventsPath", json!("/a?b"), "service.metadata.eventsPath"),
        ("/metadata/eventsPath", json!("/a b"), "service.metadata.eventsPath"),
        ("/metadata/owner", json!("me"), "service.metadata.owner"),
        ("/metadata", json!([]), "service.metadata"),
        ("/colour", json!("red"), "service.colour"),
    ] {
        let error = read(with(path, value.clone())).unwrap_err();
        assert_eq!((error.code, error.details["path"].as_str()), (Code::ServiceInvalid, Some(named)), "{path} {value}: {error}");
    }
    for value in [json!(null), json!([]), json!("orders"), json!({ "$invalid": "function" })] {
        assert_eq!(read(value).unwrap_err().details["path"], "service");
    }
}

#[test]
fn no_error_shows_what_may_be_a_password() {
    let error = read(with("/endpoint", json!("http://user:hunter2@host/"))).unwrap_err();
    assert!(!error.to_json().to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_definition_of_more_than_64_kib_is_refused() {
    let inputs = json!({ "text": "x".repeat(65_600) });
    let error = read(with("/capabilities/0/inputs", inputs)).unwrap_err();
    assert_eq!(error.details["path"], "service");
    assert!(read(with("/capabilities/0/inputs", json!({ "text": "x".repeat(60_000) }))).is_ok());
}

#[test]
fn updates_replace_whole_parts_but_metadata_key_by_key() {
    let before = read(given()).unwrap();
    let update = |updates| before.updated(updates, 2000).map(|given| given.definition);
    let after = update(json!({ "version": "2.0.0", "metadata": { "author": "me", "tags": [] } })).unwrap();
    let metadata = after.to_json()["metadata"].clone();
    assert_eq!(metadata, json!({ "tags": [], "author": "me", "environment": "production" }));
    assert_eq!((after.version.as_str(), after.updated_at_ms, after.registered_at_ms), ("2.0.0", 2000, 1000));
    assert_eq!(update(json!({ "name": "orders" })).unwrap(), before, "nothing changed, not even its time");
    for (updates, path) in [
        (json!({ "name": "other" }), "updates.name"),
        (json!({ "registeredAt": 1 }), "updates.registeredAt"),
        (json!({ "updatedAt": 1 }), "updates.updatedAt"),
        (json!({ "endpoint": "nowhere" }), "updates.endpoint"),
        (json!({ "metadata": null }), "updates.metadata"),
        (json!({ "colour": 1 }), "updates.colour"),
        (json!(null), "updates"),
    ] {
        assert_eq!(update(updates).unwrap_err().details["path"], path);
    }
}

#[test]
fn paths_are_put_behind_the_endpoint() {
    let definition = read(given()).unwrap();
    assert_eq!(definition.health_url(), "http://10.0.0.7:8080/api/health");
    assert_eq!(definition.events_url(), "http://10.0.0.7:8080/api/events");
    assert_eq!(definition.contracts_url(), "http://10.0.0.7:8080/api/events/contracts");
    let own = read(with("/metadata", json!({ "healthPath": "/ready", "eventsPath": "/hooks/ossa" }))).unwrap();
    assert_eq!(
        (own.health_url().as_str(), own.contracts_url().as_str()),
        ("http://10.0.0.7:8080/api/ready", "http://10.0.0.7:8080/api/hooks/ossa/contracts")
    );
}

#[test]
fn only_http_can_be_asked() {
    for (endpoint, is_http) in [("https://a", true), ("HTTP://a", true), ("redis://a:6379", false), ("grpc://a", false)] {
        assert_eq!(read(with("/endpoint", json!(endpoint))).unwrap().is_http(), is_http, "{endpoint}");
    }
}

#[test]
fn what_is_listed_under_another_name_is_not_that_service() {
    let text = read(given()).unwrap().to_text();
    assert_eq!(Definition::from_text("billing", &text).unwrap_err().details["path"], "service.name");
    assert!(Definition::from_text("orders", &text).is_ok());
}

#[test]
fn whatever_path_is_given_the_host_stays_that_of_the_endpoint() {
    let endpoints =
        ["http://a.example", "http://a.example/", "http://a.example:8080/x/..//", "https://[::1]:8/", "HTTP://A.example/@b.example"];
    let paths = [
        "/health",
        "//evil.example/",
        "///evil.example",
        "/@evil.example",
        "/../../x",
        "/%2e%2e/%2F/evil.example",
        "/http://evil.example",
        "/..;/x",
        "/:80@evil.example",
        "/%0d%0aHost:evil.example",
        "/.",
        "/[::2]",
        "/a/../../../../..",
        "/%5cevil.example",
    ];
    for endpoint in endpoints {
        for path in paths {
            let mut value = with("/metadata", json!({ "healthPath": path, "eventsPath": path }));
            value["endpoint"] = endpoint.into();
            let definition = read(value).unwrap();
            let (own, joined) = (Url::parse(endpoint).unwrap(), definition.health_url());
            for text in [&joined, &definition.events_url(), &definition.contracts_url()] {
                let url = Url::parse(text).unwrap();
                assert_eq!(
                    (url.scheme(), url.host(), url.port_or_known_default(), url.username(), url.query()),
                    (own.scheme(), own.host(), own.port_or_known_default(), "", None),
                    "{text}"
                );
            }
        }
    }
    for path in [
        "/a\\b",
        "/\\evil.example",
        "/a\r\nHost: evil.example",
        "/a\tb",
        "/é",
        "evil.example",
        "@evil.example",
        ":80@evil.example",
        "",
        "/a#b",
    ] {
        assert_eq!(
            read(with("/metadata", json!({ "healthPath": path }))).unwrap_err().details["path"],
            "service.metadata.healthPath",
            "{path:?}"
        );
    }
}
