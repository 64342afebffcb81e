//! Where and as whom: levels, URLs, credentials, and that none of them is ever shown.

use super::*;

fn redis(argument: &Value, variables: &[(&str, &str)]) -> RedisConfig {
    bus(&json!({ "redis": argument }), variables).unwrap().redis
}

fn single(host: &str, port: u16) -> Address {
    Address::Single { host: host.into(), port }
}

#[test]
fn an_address_in_the_argument_beats_every_address_of_the_environment() {
    let url = [("REDIS_URL", "redis://env:1"), ("REDIS_HOST", "env-host"), ("REDIS_PORT", "2")];
    let pair = &url[1..];
    for (argument, variables, address) in [
        (json!({}), &url[..], single("env", 1)),
        (json!({}), pair, single("env-host", 2)),
        (json!({ "url": "redis://code" }), &url[..], single("code", 6379)),
        (json!({ "url": "redis://code", "host": "lost", "port": 9 }), &url[..], single("code", 6379)),
        (json!({ "host": "code", "port": 9 }), &url[..], single("code", 9)),
        // A port or host alone still puts REDIS_URL aside; what is missing comes key by key.
        (json!({ "host": "code" }), &url[..1], single("code", 6379)),
        (json!({ "host": "code" }), &url[..], single("code", 2)),
        (json!({ "port": 9 }), &url[..], single("env-host", 9)),
        (json!({ "port": 9 }), &[][..], single("localhost", 9)),
        (json!({ "url": "memory://" }), &url[..], Address::Memory { name: None }),
        (json!({}), &[("REDIS_URL", "memory://x")][..], Address::Memory { name: Some("x".into()) }),
    ] {
        assert_eq!(redis(&argument, variables).address, address, "{argument} {variables:?}");
    }
    let cluster = json!({ "host": "h", "cluster": { "nodes": [{ "host": "a" }, { "host": "b", "port": 2 }] } });
    let nodes = vec![("a".to_owned(), 6379), ("b".to_owned(), 2)];
    let address = Address::Cluster { nodes, read_from_replicas: false, enable_ready_check: true };
    assert_eq!(redis(&cluster, &url).address, address);
    let sentinel = json!({ "sentinel": { "masterName": "m", "nodes": [{ "host": "a" }] } });
    let nodes = vec![("a".to_owned(), 26_379)];
    let address = Address::Sentinel { master_name: "m".into(), nodes, username: None, password: None };
    assert_eq!(redis(&sentinel, &url).address, address);
}

#[test]
fn a_wrong_variable_that_does_not_count_is_no_error() {
    let wrong = [("REDIS_URL", "nonsense"), ("REDIS_PORT", "x"), ("REDIS_HOST", "a b"), ("REDIS_DB", "x")];
    assert_eq!(redis(&json!({ "host": "h", "port": 1, "db": 0 }), &wrong).address, single("h", 1));
    assert!(redis(&json!({ "url": "memory://" }), &wrong).address.is_memory());
}

#[test]
fn a_host_that_loses_to_the_url_is_still_checked() {
    let error = bus(&json!({ "redis": { "url": "redis://h", "port": 0 } }), &[]).unwrap_err();
    assert_eq!(error.details["path"], "redis.port");
}

#[test]
fn credentials_come_key_by_key() {
    let secret = |text: &str| Some(Secret::new(text));
    let env = [("REDIS_PASSWORD", "env"), ("REDIS_DB", "4")];
    let cluster = |options: Value| json!({ "cluster": { "nodes": [{ "host": "a" }], "options": { "redisOptions": options } } });
    for (argument, password, db) in [
        (json!({ "host": "h" }), secret("env"), 4),
        (json!({ "host": "h", "password": "code", "db": 1 }), secret("code"), 1),
        (json!({ "host": "h", "password": "" }), None, 4),
        (json!({ "url": "redis://h" }), secret("env"), 4),
        (json!({ "url": "redis://user@h" }), secret("env"), 4),
        (json!({ "url": "redis://:url@h/0" }), secret("url"), 0),
        (json!({ "url": "redis://:url@h/2", "password": "url", "db": 2 }), secret("url"), 2),
        (json!({ "url": "memory://" }), None, 0),
    ] {
        let config = redis(&argument, &env);
        assert_eq!((config.password, config.db), (password, db), "{argument}");
    }
    assert_eq!(redis(&cluster(json!({ "password": "code" })), &env[..1]).password, secret("code"));
    assert_eq!(redis(&cluster(json!({})), &env[..1]).password, secret("env"));

    // The URL of the environment carries its own; keys of the argument beat them.
    let url = [("REDIS_URL", "rediss://u:url@h/7"), env[0], env[1]];
    let config = redis(&json!({}), &url);
    assert_eq!((config.username.as_deref(), config.password, config.db), (Some("u"), secret("url"), 7));
    assert_eq!(config.tls, Some(Tls::default()));
    let config = redis(&json!({ "username": "me", "password": "code", "db": 1 }), &url);
    assert_eq!((config.username.as_deref(), config.password, config.db), (Some("me"), secret("code"), 1));
    // It is put aside as a whole where the argument names a host.
    let config = redis(&json!({ "host": "code" }), &url);
    assert_eq!((config.username, config.password, config.db, config.tls), (None, secret("env"), 4, None));
}

#[test]
fn a_database_of_the_environment_contradicts_a_cluster_and_is_named() {
    let cluster = json!({ "redis": { "cluster": { "nodes": [{ "host": "a" }] } } });
    let error = bus(&cluster, &[("REDIS_DB", "1")]).unwrap_err();
    assert_eq!((&error.details["path"], &error.details["env"]), (&json!("redis.db"), &json!("REDIS_DB")));
    assert!(bus(&cluster, &[("REDIS_DB", "0")]).is_ok());
}

#[test]
fn encryption_is_asked_for_by_scheme_or_key() {
    assert_eq!(redis(&json!({ "url": "rediss://h" }), &[]).tls, Some(Tls::default()));
    assert_eq!(redis(&json!({ "url": "redis://h", "tls": true }), &[]).tls, Some(Tls::default()));
    assert_eq!(redis(&json!({ "tls": {} }), &[]).tls, Some(Tls::default()));
    assert_eq!(redis(&json!({ "tls": false }), &[]).tls, None);
    let with_ca = json!({ "url": "rediss://h", "tls": { "ca": PEM } });
    assert_eq!(redis(&with_ca, &[]).tls.unwrap().ca.as_deref(), Some(PEM));
    let options = json!({ "redisOptions": { "tls": {} } });
    let cluster = json!({ "nodes": [{ "host": "a" }], "options": options });
    assert_eq!(redis(&json!({ "cluster": cluster }), &[]).tls, Some(Tls::default()));
    let twice = json!({ "redis": { "tls": false, "cluster": cluster } });
    let error = bus(&twice, &[]).unwrap_err();
    assert_eq!(error.details["path"], "redis.cluster.options.redisOptions.tls");
    let error = bus(&at("redis.tls", json!(false)), &[("REDIS_URL", "rediss://h")]).unwrap_err();
    assert_eq!(error.details["env"], "REDIS_URL");
}

#[test]
fn a_unix_socket_has_a_path_and_no_encryption() {
    for url in ["redis+unix:///run/redis.sock", "unix:///run/redis.sock"] {
        assert_eq!(redis(&json!({ "url": url }), &[]).address, Address::Socket { path: "/run/redis.sock".into() });
    }
    let config = redis(&json!({ "url": "redis+unix://u:p@/a%3Fb%25?db=2" }), &[]);
    assert_eq!((config.username.as_deref(), config.db), (Some("u"), 2));
    let resolved = BusConfig::from_resolved(&bus(&at("redis.url", json!("redis+unix:///a%3Fb%25%40")), &[]).unwrap().to_json()).unwrap();
    assert_eq!(resolved.redis.address, Address::Socket { path: "/a?b%@".into() });
    let error = bus(&json!({ "redis": { "url": "redis+unix:///r", "tls": true } }), &[]).unwrap_err();
    assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &json!("redis.tls")));
}

#[test]
fn nothing_is_as_durable_as_asked_in_memory() {
    let error = bus(&json!({ "redis": { "url": "memory://" }, "durability": { "waitReplicas": 1 } }), &[]).unwrap_err();
    assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &json!("durability")));
    assert!(bus(&json!({ "redis": { "url": "memory://" }, "durability": { "waitReplicas": 0 } }), &[]).unwrap().durability.is_none());
}

#[test]
fn no_secret_is_in_any_error_or_debug_text() {
    let nodes = json!([{ "host": "a" }]);
    let key = PEM_KEY.replace("AA==", "hunter2");
    for argument in [
        json!({ "redis": { "url": "redis://u:hunter2@h" } }),
        json!({ "redis": { "host": "h", "password": "hunter2", "tls": { "cert": PEM, "key": key } } }),
        json!({ "redis": { "cluster": { "nodes": nodes, "options": { "redisOptions": { "password": "hunter2" } } } } }),
        json!({ "redis": { "sentinel": { "masterName": "m", "nodes": nodes, "password": "hunter2" } } }),
    ] {
        let config = bus(&argument, &[]).unwrap();
        assert!(config.to_json().to_string().contains("hunter2"), "{argument}");
        assert!(!format!("{config:?} {config:#?}").contains("hunter2"), "{argument}");
    }
    let hook = json!({ "monitoring": {
        "alerting": { "webhookUrl": "https://hooks/hunter2" },
        "tracing": { "otlpEndpoint": "https://u:hunter2@h", "jaegerEndpoint": "https://u:hunter2@h" },
    } });
    assert!(!format!("{:?}", ossa(&hook, &[]).unwrap()).contains("hunter2"));
    assert!(!format!("{:?}", redis(&json!({}), &[("REDIS_PASSWORD", "hunter2")])).contains("hunter2"));

    for (argument, variables) in [
        (json!({ "redis": { "url": "http://u:hunter2@h" } }), &[][..]),
        (json!({ "redis": { "url": "u:hunter2@h" } }), &[][..]),
        (json!({ "redis": { "url": "redis://u:hunter2@h:x" } }), &[][..]),
        (json!({ "redis": { "url": "redis://u:hunter2@h/1", "db": 2 } }), &[][..]),
        (json!({ "redis": { "url": "redis://u:hunter2@h", "password": "hunter22" } }), &[][..]),
        (json!({ "redis": { "url": "rediss://u:hunter2@h", "tls": false } }), &[][..]),
        (json!({ "redis": { "url": { "hunter2": 1 } } }), &[][..]),
        (json!({ "redis": { "host": "redis://u:hunter2@h" } }), &[][..]),
        (json!({ "redis": { "host": "u:hunter2@h" } }), &[][..]),
        (json!({ "redis": { "password": ["hunter2"] } }), &[][..]),
        (json!({ "redis": { "password": 4_242_424 } }), &[][..]),
        (json!({ "redis": { "pasword": "hunter2" } }), &[][..]),
        (json!({ "redis": { "tls": { "key": "hunter2" } } }), &[][..]),
        (json!({ "redis": { "tls": "hunter2@x" } }), &[][..]),
        (json!({ "redis": { "url": "memory://", "password": "hunter2" } }), &[][..]),
        (json!({}), &[("REDIS_URL", "redis://u:hunter2@h:0")][..]),
        (json!({}), &[("REDIS_URL", "hunter2")][..]),
        (json!({}), &[("REDIS_HOST", "u:hunter2@h")][..]),
        (json!({}), &[("REDIS_PORT", "redis://u:hunter2@h")][..]),
        (json!({ "redis": { "port": 0 } }), &[("REDIS_PASSWORD", "hunter2")][..]),
    ] {
        let error = bus(&argument, variables).expect_err("wrong");
        let text = format!("{error} {error:?} {}", error.to_json());
        assert!(!text.contains("hunter2") && !text.contains("4242424"), "{argument}: {text}");
    }
    for (path, value) in [
        ("monitoring.alerting.webhookUrl", "hooks/hunter2"),
        ("monitoring.tracing.otlpEndpoint", "otlp://hunter2"),
        ("crossProject.trustedKeys.p", "hunter2"),
    ] {
        let error = ossa(&at(path, json!(value)), &[]).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
    }
}
