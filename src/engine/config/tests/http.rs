//! `http` of the registry, and of the bus that works with one.

use super::*;

/// What is made of an argument there.
type Resolving = fn(&Value) -> Result<Value>;

/// Both places, with the path there.
const PLACES: [(&str, Resolving); 2] = [
    ("http", |argument| resolve_registry(argument, &env::none).map(|config| config.to_json()["http"].clone())),
    ("serviceRegistry.http", |argument| {
        resolve_ossa(argument, &env::none).map(|config| config.to_json()["serviceRegistry"]["http"].clone())
    }),
];

#[test]
fn rules_are_written_in_their_shortest_way_and_can_be_fed_back() {
    let http = json!({
        "allow": ["*.Example.com", "[::1]:8080", "10.0.0.0/8:80", "private"], "deny": ["API.example.com.", "fd00::/8"],
        "timeoutMs": 5, "maxResponseBytes": 2048, "ca": PEM,
    });
    let written = json!({
        "allow": ["*.example.com", "[::1]:8080", "10.0.0.0/8:80", "private"], "deny": ["api.example.com", "fd00::/8"],
        "timeoutMs": 5, "maxResponseBytes": 2048, "ca": PEM,
    });
    for (path, resolve) in PLACES {
        assert_eq!(resolve(&at(path, http.clone())).unwrap(), written, "{path}");
        assert_eq!(resolve(&at(path, written.clone())).unwrap(), written, "{path}");
    }
    let registry = resolve_registry(&at("http", http.clone()), &env::none).unwrap();
    assert_eq!(RegistryConfig::from_resolved(&registry.to_json()).unwrap(), registry);
    let bus = ossa(&at("serviceRegistry.http", http), &[]).unwrap();
    assert_eq!(OssaConfig::from_resolved(&bus.to_json()).unwrap(), bus);
}

#[test]
fn a_bus_that_is_told_nothing_leaves_it_to_the_registry() {
    let told = |argument: &Value| ossa(argument, &[]).unwrap().service_registry.http;
    assert_eq!(told(&json!({})), None);
    assert_eq!(told(&at("serviceRegistry.http", json!({}))), Some(HttpConfig::default()));
    let config = ossa(&json!({}), &[]).unwrap();
    assert!(config.to_json()["serviceRegistry"].get("http").is_none());
    assert_eq!(OssaConfig::from_resolved(&config.to_json()).unwrap(), config);
}

#[test]
fn an_empty_allow_list_is_kept_apart_from_none() {
    let allow = |http: Value| resolve_registry(&at("http", http), &env::none).unwrap();
    let (empty, none) = (allow(json!({ "allow": [] })), allow(json!({})));
    assert_eq!((&empty.http.allow, &none.http.allow), (&Some(Vec::new()), &None));
    assert_eq!(RegistryConfig::from_resolved(&empty.to_json()).unwrap(), empty);
}

#[test]
fn wrong_rules_are_named_with_their_place_and_what_would_be_right() {
    let invalid = json!({ "$invalid": "a function" });
    for (place, resolve) in PLACES {
        for list in ["allow", "deny"] {
            let of = |wrong: &Value| json!({ list: ["api.example.com", "private", wrong] });
            for (wrong, says) in [
                (json!("http://h"), "without a scheme"),
                (json!("10.0.0.7/8"), "only zeros"),
                (json!("h:0"), "1 to 65535"),
                (json!("*"), "leave allow out"),
                (json!("0x7f.1"), "four numbers"),
                (json!(""), "a host name ("),
                (json!(1), "a string"),
                (json!(null), "a string"),
                (json!(["private"]), "a string"),
                (invalid.clone(), "a function"),
            ] {
                let error = resolve(&at(place, of(&wrong))).expect_err(&wrong.to_string());
                let path = format!("{place}.{list}[2]");
                assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &json!(path)), "{error}");
                assert!(error.message.starts_with(&path) && error.message.contains(says), "{error}");
            }
            for wrong in [json!("private"), json!({}), json!(true), Value::Null, Value::Array(vec![json!("h"); 1_001])] {
                let error = resolve(&at(place, json!({ list: wrong }))).expect_err(list);
                assert_eq!(error.details["path"], format!("{place}.{list}"), "{error}");
            }
            let error = resolve(&at(place, json!({ list: ["u:hunter2@h"] }))).unwrap_err();
            assert!(!error.to_json().to_string().contains("hunter2"), "{error}");
        }
        for wrong in [json!("/etc/ca.pem"), json!(PEM_KEY), json!(1), json!([PEM])] {
            let error = resolve(&at(place, json!({ "ca": wrong }))).expect_err(place);
            assert_eq!(error.details["path"], format!("{place}.ca"), "{error}");
            assert!(!error.message.contains("AA=="), "{error}");
        }
        for wrong in [json!([]), json!("x"), json!(true), Value::Null] {
            assert_eq!(resolve(&at(place, wrong)).unwrap_err().details["path"], place);
        }
        let error = resolve(&at(place, json!({ "timeoutMS": 1 }))).unwrap_err();
        assert_eq!(error.details["suggestion"], format!("{place}.timeoutMs"));
    }
}
