use super::*;

fn contract(version: &str, schema: Value) -> Value {
    json!({
        "name": "orders",
        "version": version,
        "sourceProject": "shop",
        "targetProjects": ["billing", "mail"],
        "eventTypes": ["order.*", "refund"],
        "schema": schema,
        "metadata": { "description": "d", "author": "a", "createdAt": 5, "updatedAt": "1970-01-01T00:00:00.006Z" },
    })
}

fn needs(keys: &[&str]) -> Value {
    json!({ "type": "object", "required": keys })
}

fn with(key: &str, value: Value) -> Value {
    let mut json = contract("1.0.0", json!(true));
    json[key] = value;
    json
}

fn texts(contracts: &[Value]) -> BTreeMap<String, String> {
    let read = contracts.iter().map(|value| Contract::read(value.clone(), 0).unwrap());
    read.map(|contract| (contract.id(), contract.to_text())).collect()
}

fn known(contracts: &[Value]) -> Contracts {
    let known = Contracts::new(&texts(contracts), &Contracts::default());
    assert_eq!(known.faults().count(), 0);
    known
}

fn named(texts: &[&str]) -> Vec<Named> {
    texts.iter().map(|text| Named::read(text).unwrap()).collect()
}

fn sent(known: &Contracts, data: &Value, wanted: Option<&str>) -> Result<Vec<String>> {
    let wanted = wanted.map(|wanted| VersionReq::parse(wanted).unwrap());
    let kept = known.check_outgoing("shop", "billing", "order.made", data, wanted.as_ref())?;
    Ok(kept.iter().map(ToString::to_string).collect())
}

#[test]
fn a_contract_survives_being_stored() {
    let contract = Contract::read(contract("1.2.3-rc.1+build", needs(&["id"])), 99).unwrap();
    assert_eq!(contract.id(), "shop/orders@1.2.3-rc.1+build");
    assert_eq!((contract.about.created_at_ms, contract.about.updated_at_ms), (5, 6));
    let again = Contract::from_text(&contract.to_text()).unwrap();
    assert_eq!((again.to_text(), again.id()), (contract.to_text(), contract.id()));

    let mut bare = with("name", json!("team/orders:v"));
    bare.as_object_mut().unwrap().remove("metadata");
    let bare = Contract::read(bare, 99).unwrap();
    let expected = json!({ "description": "", "author": "", "createdAt": 99, "updatedAt": 99 });
    assert_eq!(bare.to_json()["metadata"], expected);
    let tagged = with("metadata", json!({ "tags": [], "createdAt": 1 }));
    let expected = json!({ "description": "", "author": "", "createdAt": 1, "updatedAt": 99, "tags": [] });
    assert_eq!(Contract::read(tagged, 99).unwrap().to_json()["metadata"], expected);
}

#[test]
fn wrong_contracts_name_their_path() {
    for (value, path) in [
        (json!([]), "contract"),
        (json!({ "$invalid": "Symbol()" }), "contract"),
        (with("name", json!("")), "contract.name"),
        (with("name", json!("a@b")), "contract.name"),
        (with("name", json!("x".repeat(129))), "contract.name"),
        (with("version", json!("1.0")), "contract.version"),
        (with("version", json!("v1.0.0")), "contract.version"),
        (with("version", json!(1)), "contract.version"),
        (with("sourceProject", json!("a/b")), "contract.sourceProject"),
        (with("sourceProject", json!("*")), "contract.sourceProject"),
        (with("targetProjects", json!([])), "contract.targetProjects"),
        (with("targetProjects", json!("*")), "contract.targetProjects"),
        (with("targetProjects", json!(["*", "a:b"])), "contract.targetProjects[1]"),
        (with("targetProjects", json!(vec!["a"; 1001])), "contract.targetProjects"),
        (with("eventTypes", json!([])), "contract.eventTypes"),
        (with("eventTypes", json!(["ok", "a*"])), "contract.eventTypes[1]"),
        (with("eventTypes", json!([1])), "contract.eventTypes[0]"),
        (with("schema", json!("x")), "contract.schema"),
        (with("schema", json!({ "properties": { "a": { "pattern": "(" } } })), "contract.schema/properties/a/pattern"),
        (with("metadata", json!(null)), "contract.metadata"),
        (with("metadata", json!({ "description": 1 })), "contract.metadata.description"),
        (with("metadata", json!({ "author": "x".repeat(4097) })), "contract.metadata.author"),
        (with("metadata", json!({ "createdAt": "today" })), "contract.metadata.createdAt"),
        (with("metadata", json!({ "updatedAt": -1 })), "contract.metadata.updatedAt"),
        (with("metadata", json!({ "tags": "a" })), "contract.metadata.tags"),
        (with("metadata", json!({ "tags": ["a", 1] })), "contract.metadata.tags[1]"),
        (with("metadata", json!({ "owner": "a" })), "contract.metadata.owner"),
        (with("targets", json!([])), "contract.targets"),
    ] {
        let error = Contract::read(value.clone(), 0).unwrap_err();
        assert_eq!((error.code, &error.details["path"]), (Code::ContractInvalid, &json!(path)), "{value}: {error}");
        assert!(error.message.starts_with(path), "{error}");
    }
    for key in ["name", "version", "sourceProject", "targetProjects", "eventTypes", "schema"] {
        let mut value = contract("1.0.0", json!(true));
        value.as_object_mut().unwrap().remove(key);
        let error = Contract::read(value, 0).unwrap_err();
        assert_eq!(error.details["path"], format!("contract.{key}"));
        assert!(error.message.contains("is missing"), "{error}");
    }
}

#[test]
fn a_contract_is_about_its_projects_and_types() {
    let known = known(&[
        contract("1.0.0", json!(true)),
        json!({ "name": "all", "version": "1.0.0", "sourceProject": "shop", "targetProjects": ["*"], "eventTypes": ["news.**"], "schema": true }),
    ]);
    for (source, target, event_type, expected) in [
        ("shop", "billing", "order.made", true),
        ("shop", "mail", "refund", true),
        ("shop", "billing", "order", false),
        ("shop", "other", "order.made", false),
        ("other", "billing", "order.made", false),
        ("shop", "other", "news.a.b", true),
    ] {
        assert_eq!(known.applies_any(source, target, event_type), expected, "{source} {target} {event_type}");
        let wrong = known.check_outgoing(source, target, event_type, &json!(1), None).unwrap();
        assert_eq!(wrong.is_empty(), !expected);
    }
    let ids = |project: &str| known.available(project).map(|contract| contract.id()).collect::<Vec<_>>();
    assert_eq!(ids("shop"), ["shop/all@1.0.0", "shop/orders@1.0.0"]);
    assert_eq!(ids("mail"), ["shop/all@1.0.0", "shop/orders@1.0.0"]);
    assert_eq!(ids("other"), ["shop/all@1.0.0"]);
}

#[test]
fn data_names_the_newest_version_that_accepts_it() {
    let known = known(&[
        contract("1.0.0", needs(&["id"])),
        contract("1.10.0", needs(&["id", "at"])),
        contract("1.9.0", needs(&["id"])),
        contract("2.0.0", needs(&["key"])),
        contract("3.0.0-beta.1", json!({ "type": "object" })),
    ]);
    for (data, expected) in [
        (json!({ "key": 1, "id": 1 }), "orders@2.0.0"),
        (json!({ "id": 1, "at": 1 }), "orders@1.10.0"),
        (json!({ "id": 1 }), "orders@1.9.0"),
        (json!({}), "orders@3.0.0-beta.1"),
    ] {
        assert_eq!(sent(&known, &data, None).unwrap(), [expected], "{data}");
    }
    let error = sent(&known, &json!(1), None).unwrap_err();
    assert_eq!(error.details["tried"], json!(["2.0.0", "1.10.0", "1.9.0", "1.0.0", "3.0.0-beta.1"]));
}

#[test]
fn a_breaking_version_leaves_the_old_one_as_it_is() {
    let old = contract("1.0.0", needs(&["id"]));
    let data = json!({ "id": 1 });
    let before = known(std::slice::from_ref(&old));
    assert_eq!(sent(&before, &data, None).unwrap(), ["orders@1.0.0"]);
    let after = Contracts::new(&texts(&[old, contract("2.0.0", needs(&["key"]))]), &before);
    assert_eq!(sent(&after, &data, None).unwrap(), ["orders@1.0.0"]);
    assert_eq!(sent(&after, &json!({ "key": 1 }), None).unwrap(), ["orders@2.0.0"]);
    after.check_incoming("shop", "billing", "order.made", &data, &named(&["orders@1.0.0"])).unwrap();
    after.check_incoming("shop", "billing", "order.made", &data, &[]).unwrap();
}

#[test]
fn broken_contracts_are_told_with_every_failing_path() {
    let mut second = contract("1.0.0", json!({ "properties": { "id": { "type": "integer" } } }));
    second["name"] = json!("strict");
    let shape = json!({ "required": ["at"], "properties": { "id": { "type": "string" }, "n": { "maximum": 3 } } });
    let known = known(&[contract("1.0.0", needs(&["zip"])), contract("2.0.0", shape), second]);
    let error = sent(&known, &json!({ "id": true, "n": 4 }), None).unwrap_err();
    assert_eq!((error.code, error.retryable), (Code::ContractViolation, false));
    assert_eq!((&error.details["contract"], &error.details["version"]), (&json!("orders"), &json!("2.0.0")));
    assert_eq!(error.details["tried"], json!(["2.0.0", "1.0.0"]));
    let paths = error.details["paths"].as_array().unwrap();
    let mut found: Vec<_> = paths.iter().map(|p| format!("{} {} {}", p["path"], p["contract"], p["version"]).replace('"', "")).collect();
    found.sort();
    assert_eq!(found, [" orders 2.0.0", "/id orders 2.0.0", "/id strict 1.0.0", "/n orders 2.0.0"]);
    assert!(error.message.starts_with("the data breaks contract 'orders' 2.0.0, also 1.0.0: "), "{error}");
    assert!(error.message.ends_with("and 1 more in details.paths"), "{error}");
}

#[test]
fn a_version_can_be_asked_for() {
    let known = known(&[contract("1.0.0", needs(&["id"])), contract("2.0.0", needs(&["key"]))]);
    let both = json!({ "id": 1, "key": 1 });
    assert_eq!(sent(&known, &both, Some("^1")).unwrap(), ["orders@1.0.0"]);
    assert_eq!(sent(&known, &both, Some("*")).unwrap(), ["orders@2.0.0"]);
    let error = sent(&known, &json!({ "id": 1 }), Some("2.0.0")).unwrap_err();
    assert_eq!(error.details["tried"], json!(["2.0.0"]));
    let error = sent(&known, &both, Some("^3")).unwrap_err();
    assert_eq!((error.code, &error.details["versions"]), (Code::ContractViolation, &json!(["2.0.0", "1.0.0"])));
    assert!(error.message.contains("2.0.0, 1.0.0"), "{error}");
}

#[test]
fn what_comes_is_held_to_the_versions_it_names() {
    let known = known(&[contract("1.0.0", needs(&["id"])), contract("2.0.0", needs(&["key"]))]);
    let check = |event_type: &str, data: &Value, names: &[&str]| known.check_incoming("shop", "billing", event_type, data, &named(names));
    let (old, new, none) = (json!({ "id": 1 }), json!({ "key": 1 }), json!({}));
    for (data, names, expected) in [
        (&old, vec!["orders@1.0.0"], true),
        (&old, vec!["orders@2.0.0"], false),
        (&new, vec!["orders@2.0.0"], true),
        (&new, vec!["orders@1.0.0"], false),
        (&old, vec!["orders@1.0.0", "orders@2.0.0"], false),
        (&old, vec![], true),
        (&none, vec![], false),
        (&old, vec!["orders@9.0.0"], true),
        (&none, vec!["orders@9.0.0"], false),
        (&old, vec!["orders@9.0.0", "orders@2.0.0"], false),
        (&none, vec!["unheard-of@1.0.0"], false),
        (&old, vec!["unheard-of@1.0.0"], true),
    ] {
        assert_eq!(check("order.made", data, &names).is_ok(), expected, "{data} {names:?}");
    }
    assert!(check("news", &none, &["orders@1.0.0"]).is_ok(), "the contract is not about this type");
    let error = check("order.made", &old, &["orders@2.0.0"]).unwrap_err();
    assert_eq!((error.code, &error.details["tried"]), (Code::ContractViolation, &json!(["2.0.0"])));
}

#[test]
fn a_version_that_does_not_apply_excuses_nothing() {
    let mut narrow = contract("1.0.0", json!(true));
    narrow["eventTypes"] = json!(["other"]);
    let known = known(&[narrow, contract("2.0.0", needs(&["key"]))]);
    let names = named(&["orders@1.0.0"]);
    assert!(known.check_incoming("shop", "billing", "order.made", &json!({}), &names).is_err());
    assert!(known.check_incoming("shop", "billing", "order.made", &json!({ "key": 1 }), &names).is_ok());
}

#[test]
fn unchanged_texts_are_compiled_once() {
    let mut all = texts(&[contract("1.0.0", needs(&["id"])), contract("2.0.0", needs(&["key"]))]);
    let before = Contracts::new(&all, &Contracts::default());
    all.insert("shop/orders@2.0.0".into(), Contract::read(contract("2.0.0", needs(&["other"])), 0).unwrap().to_text());
    let after = Contracts::new(&all, &before);
    let same = |id: &str| Arc::ptr_eq(before.get(id).unwrap(), after.get(id).unwrap());
    assert!(same("shop/orders@1.0.0"));
    assert!(!same("shop/orders@2.0.0"));
    assert_eq!(after.all().count(), 2);
    all.clear();
    assert_eq!(Contracts::new(&all, &after).all().count(), 0);
}

#[test]
fn texts_that_are_no_contracts_are_told_and_left_out() {
    let mut all = texts(&[contract("1.0.0", needs(&["id"]))]);
    let right = all["shop/orders@1.0.0"].clone();
    all.insert("a/broken@1.0.0".into(), "{".into());
    all.insert("a/schema@1.0.0".into(), with("schema", json!({ "type": 1 })).to_string());
    all.insert("shop/other@1.0.0".into(), right);
    let known = Contracts::new(&all, &Contracts::default());
    let faults: Vec<_> = known.faults().collect();
    assert_eq!(faults.iter().map(|fault| fault.id.as_str()).collect::<Vec<_>>(), ["a/broken@1.0.0", "a/schema@1.0.0", "shop/other@1.0.0"]);
    assert!(faults.iter().all(|fault| fault.error.code == Code::ContractInvalid));
    assert!(sent(&known, &json!({ "id": 1 }), None).is_ok());
    assert!(known.get("a/broken@1.0.0").is_none());
}

#[test]
fn names_are_read_as_they_are_written() {
    for text in ["orders@1.0.0", "team/orders:x@1.0.0-rc.1+b"] {
        assert_eq!(Named::read(text).unwrap().to_string(), text);
    }
    for text in ["orders", "orders@1", "@", ""] {
        assert!(Named::read(text).is_none(), "{text}");
    }
}
