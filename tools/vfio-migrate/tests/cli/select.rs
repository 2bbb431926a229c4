// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `select`: what it takes for candidates, what it says of them, and its cache.

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

use serde_json::{json, Value as Json};

use crate::host::{info, list, make_fifo, Host, Ran, FIXED, FLEXIBLE, MODEL};

/// A source with two ports.
fn two_ports(host: &Host) -> String {
    host.file("source.json", list(json!({"ports": 2, "msi": true})))
}

fn one_line(document: &str) -> String {
    document.replace('\n', " ")
}

/// The objects of JSON lines.
#[track_caller]
fn objects(ran: &Ran) -> Vec<Json> {
    let lines = ran.out.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {ran:?}")))
        .collect()
}

fn named(name: &str, generation: &str, ports: &str) -> String {
    let mut document: Json = serde_json::from_str(&info(ports)).unwrap();
    document["name"] = json!(name);
    document["generation"] = json!(generation);
    document.to_string()
}

#[test]
fn candidates_are_files_directories_types_instances_and_documents() {
    let host = Host::new();
    let source = two_ports(&host);
    fs::create_dir(host.path("hosts")).unwrap();
    for (name, ports) in [
        ("a.json", "1"),
        ("b.json", "1, 2, 4"),
        ("c.json", "2"),
        ("ignored.txt", "2"),
    ] {
        host.file(&format!("hosts/{name}"), info(ports));
    }
    let hosts = host.path("hosts").display().to_string();
    let ran = host
        .run(&[
            "select",
            &source,
            &hosts,
            "card-1",
            "card0/card-any",
            FIXED,
            FLEXIBLE,
        ])
        .expect(0);
    assert_eq!(
        ran.out,
        format!(
            "yes  {hosts}/c.json  (0 parameters to change)\n\
             yes  {hosts}/b.json  (1 parameter to change: ports 1 -> 2)\n\
             yes  card0/card-any  (1 parameter to change: ports 1 -> 2)\n\
             yes  {FLEXIBLE}  (1 parameter to change: ports 1 -> 2)\n\
             no   {hosts}/a.json  ports: source has 2, this device allows 1\n\
             no   card0/card-1  ports: source has 2, this device allows 1\n\
             no   {FIXED}  ports: source has 2, this device allows 1\n"
        )
    );
    let best = host
        .run(&["select", "--best", "1", &source, &hosts])
        .expect(0);
    assert_eq!(best.out.lines().count(), 1, "{best:?}");
}

/// What is to be changed of an instance is told from what it is now, not from what a new one would be.
#[test]
fn an_instance_is_judged_by_what_it_is() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 4, "msi": true})));
    host.run(&["prepare", &source, FLEXIBLE]).expect(0);
    let ran = host
        .run(&["select", "--json", &source, "card-any", FLEXIBLE])
        .expect(0);
    let rows = objects(&ran);
    assert_eq!(rows[0]["name"], FLEXIBLE);
    assert_eq!(rows[0]["changes"], json!([]));
    assert_eq!(
        rows[1]["changes"],
        json!([{"name": "ports", "from": 1, "to": 4}])
    );
}

#[test]
fn documents_on_standard_input_have_one_line_or_several() {
    let host = Host::new();
    let source = two_ports(&host);
    let select = |input: &str, status| {
        host.run_with(&["select", &source, "-"], input.as_bytes())
            .expect(status)
    };
    let lines = [one_line(&info("1")), one_line(&info("2"))].join("\n");
    let wanted = "yes  line 2  (0 parameters to change)\nno   line 1  ports: source has 2, this device allows 1\n";
    assert_eq!(select(&lines, 0).out, wanted);
    // As `jq .` prints it.
    let pretty = |ports| {
        let document: Json = serde_json::from_str(&info(ports)).unwrap();
        format!("{document:#}\n")
    };
    let ran = select(&pretty("2"), 0);
    assert_eq!(ran.out, "yes  line 1  (0 parameters to change)\n");
    let first = pretty("2");
    let second = 1 + first.lines().count();
    let ran = select(&format!("{first}{}", pretty("1")), 0);
    assert!(
        ran.out.contains(&format!("no   line {second}  ")),
        "{ran:?}"
    );
    select(&one_line(&info("1")), 1);
    select("", 1);
}

#[test]
fn a_candidate_that_cannot_be_read_is_a_row_with_its_reason() {
    let host = Host::new();
    let source = two_ports(&host);
    let good = host.file("good.json", info("2"));
    let path = |name: &str| host.path(name).display().to_string();
    fs::create_dir(host.path("hosts")).unwrap();
    symlink("nowhere", host.path("hosts/dangling.json")).unwrap();
    fs::create_dir(host.path("hosts/directory.json")).unwrap();
    host.file("hosts/broken.json", "{\"models\":\n1}");
    host.file("hosts/good.json", info("2"));
    let made = std::process::Command::new("mkfifo")
        .arg(host.path("hosts/fifo.json"))
        .status();
    assert!(made.unwrap().success());
    let nobody = "00000000-0000-4000-8000-000000000000";
    let rows = [
        (path("missing.json"), "neither a file nor a type"),
        (path("hosts/dangling.json"), "ENOENT"),
        (path("hosts/directory.json"), "a directory"),
        (path("hosts/fifo.json"), "a FIFO"),
        (path("hosts/broken.json"), "2:1: models: invalid type"),
        ("card-9".to_string(), "neither a file nor a type"),
        (nobody.to_string(), "no such mdev instance"),
    ];
    let missing = path("missing.json");
    let hosts = path("hosts");
    let candidates = [&missing, &hosts, &good, "card-9", nobody];
    let ran = host.run(&[&["select", &source], &candidates[..]].concat());
    assert_eq!(ran.status, 2, "{ran:?}");
    assert!(ran.out.starts_with("yes  "), "{ran:?}");
    for (name, why) in &rows {
        let start = format!("?    {name}  ");
        let row = ran.out.lines().find_map(|line| line.strip_prefix(&start));
        let row = row.unwrap_or_else(|| panic!("no row of {name}: {ran:?}"));
        assert!(row.contains(why), "{name}: {row}");
    }
    assert_eq!(
        ran.err,
        "vfio-migrate: 7 candidates of 9 could not be read\n"
    );
    let ran = host.run(&[&["--json", "select", &source], &candidates[..]].concat());
    let objects = objects(&ran);
    assert_eq!(objects.len(), 10, "{ran:?}");
    assert_eq!(objects.last().unwrap()["error"]["status"], 2);
    // Whoever asks for the best is told as well.
    let ran = host.run(&[&["select", "--best", "1", &source], &candidates[..]].concat());
    assert_eq!((ran.status, ran.out.lines().count()), (2, 1), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 8, "{ran:?}");
    // Root may read everything.
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(&good, fs::Permissions::from_mode(0o000)).unwrap();
        host.run(&["select", &source, &good])
            .expect(2)
            .says("EACCES");
    }
}

/// All of what was found is printed, however much that is.
#[test]
fn rows_and_reasons_are_whole() {
    let host = Host::new();
    let params: Vec<String> = (0..40)
        .map(|i| format!("a-parameter-with-a-long-name-{i}"))
        .collect();
    let source: serde_json::Map<String, Json> = params
        .iter()
        .map(|name| (name.clone(), json!("some text")))
        .collect();
    let source = host.file("source.json", list(Json::Object(source)));
    let candidate = host.file("candidate.json", info("1"));
    let ran = host.run(&["select", &source, &candidate]).expect(1);
    for name in &params {
        let reason = format!("{name}: source has \"some text\", this device does not know it");
        assert!(ran.out.contains(&reason), "{name} is not in {ran:?}");
    }
    assert!(!ran.out.contains('…'), "{ran:?}");
    let destination = host.file("destination.json", info("1"));
    let ran = host.run(&["check", &source, &destination]).expect(1);
    assert_eq!(ran.out.lines().count(), 1 + params.len() + 1, "{ran:?}");
    let words = "words ".repeat(100);
    let long = info("1").replace("How many", &words);
    let long = host.file("long.json", long);
    host.run(&["info", &long]).expect(0).says(&words);
    let ran = host.run(&["prepare", &source, FIXED]);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(params.iter().all(|name| ran.err.contains(name)), "{ran:?}");
}

fn select_cached(host: &Host, source: &str, cache: &str, input: &str) -> Vec<Json> {
    let arguments = ["select", "--json", "--cache", cache, source, "-"];
    objects(&host.run_with(&arguments, input.as_bytes()))
}

#[test]
fn the_cache_is_refreshed_exactly_when_the_generation_changed() {
    let host = Host::new();
    let source = two_ports(&host);
    let cache = host.path("a/cache").display().to_string();
    let state = |input: &str| {
        let rows = select_cached(&host, &source, &cache, input);
        (rows[0]["compatible"].clone(), rows[0]["cache"].clone())
    };
    let file = || {
        let mut files = fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let file = files.next().unwrap();
        assert_eq!(files.next(), None);
        file
    };
    let two = named("host/../é\n", "1", "2");
    assert_eq!(
        state(&two),
        (json!(true), json!({"state": "refreshed", "why": "new"}))
    );
    let inode = fs::metadata(file()).unwrap().ino();
    let used = json!({"state": "used"});
    assert_eq!(state(&two), (json!(true), used.clone()));
    // The rest of a document of the same generation is not looked at, and need not be there.
    assert_eq!(
        state(&named("host/../é\n", "1", "1")),
        (json!(true), used.clone())
    );
    let stub = json!({"name": "host/../é\n", "generation": "1"}).to_string();
    assert_eq!(state(&stub), (json!(true), used));
    assert_eq!(
        fs::metadata(file()).unwrap().ino(),
        inode,
        "the copy was written anew"
    );
    let refreshed = json!({"state": "refreshed", "why": "generation", "was": "1"});
    assert_eq!(
        state(&named("host/../é\n", "2", "1")),
        (json!(false), refreshed)
    );
    assert_ne!(fs::metadata(file()).unwrap().ino(), inode);
    // Of the old generation there is no copy any more.
    let rows = select_cached(&host, &source, &cache, &stub);
    let why = rows[0]["error"].as_str().unwrap();
    assert!(why.contains("give the whole document"), "{why}");
}

#[test]
fn a_damaged_copy_is_refreshed() {
    let host = Host::new();
    let source = two_ports(&host);
    let cache = host.path("cache").display().to_string();
    let document = named("host", "1", "2");
    select_cached(&host, &source, &cache, &document);
    let file = fs::read_dir(&cache)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let whole = fs::read(&file).unwrap();
    for damaged in [
        &b""[..],
        &whole[..whole.len() / 2],
        b"\xff",
        br#"{"name": "host", "generation": "1"}"#,
        br#"{"generation": "1", "models": 1}"#,
    ] {
        fs::write(&file, damaged).unwrap();
        let rows = select_cached(&host, &source, &cache, &document);
        assert_eq!(rows[0]["compatible"], true);
        assert_eq!(
            rows[0]["cache"],
            json!({"state": "refreshed", "why": "damaged"})
        );
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
    // Nor does anybody wait for what only has the name of a copy.
    fs::remove_file(&file).unwrap();
    make_fifo(&file);
    select_cached(&host, &source, &cache, &document);
    assert_eq!(fs::read(&file).unwrap(), whole);
    // What cannot be replaced is told, and the answer stays.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let ran = host.run_with(
        &["select", "--cache", &cache, &source, "-"],
        document.as_bytes(),
    );
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.err.contains("EISDIR"), "{ran:?}");
    let left: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, [file]);
}

#[test]
fn the_cache_says_what_it_did() {
    let host = Host::new();
    let source = two_ports(&host);
    let cache = host.path("cache").display().to_string();
    let without = json!({"models": {"m": {"params": {}}}}).to_string();
    let input = |generation: &str| format!("{}\n{without}\n", named("host", generation, "2"));
    let run = |generation: &str| {
        host.run_with(
            &["select", "--cache", &cache, &source, "-", "card-any"],
            input(generation).as_bytes(),
        )
    };
    let ran = run("1").expect(0);
    for row in [
        "yes  host  (0 parameters to change)  [cache refreshed: it was not there]",
        "this device is m  [not in the cache: it has no generation]",
        "card0/card-any  (1 parameter to change: ports 1 -> 2)  [cache refreshed: it was not there]",
    ] {
        assert!(ran.out.contains(row), "{row}: {ran:?}");
    }
    assert_eq!(ran.err, "cache: 0 used, 2 refreshed\n");
    let ran = run("2")
        .expect(0)
        .says("  [cache refreshed: the generation was \"1\"]");
    assert_eq!(ran.err, "cache: 1 used, 1 refreshed\n");
    assert!(
        ran.out.contains("ports 1 -> 2)  [from the cache]"),
        "{ran:?}"
    );
    let file = host.file("file", "");
    host.run(&["select", "--cache", &file, &source, "card-any"])
        .expect(2)
        .says(&file);
}

/// As the file `migration/compatible` of an instance tells it.
fn compatible() -> Json {
    json!({
        "self": {"mdev_type": "card-2", "device_api": "vfio-pci", "model": MODEL, "params": {"ports": 2, "msi": true, "label": "x"}},
        "compatible": [
            {"mdev_type": "card-${ports}-${depth}", "model": MODEL,
             "params": {"ports": [1, "2-3"], "depth": [16, 64], "msi": [false, true], "flow": [true, false]}},
            {"mdev_type": "card-any", "model": MODEL, "params": {"ports": ["1-4"], "msi": [true]}},
            {"mdev_type": "other", "model": "example.org/other", "params": {}},
        ],
    })
}

#[test]
fn types_in_the_july_2020_form_are_candidates() {
    let host = Host::new();
    let source = |name: &str, params: Json| host.file(name, list(params));
    let object = host.file("compatible.json", compatible().to_string());
    let select = |source: &str| {
        let ran = host.run(&["select", "--json", source, &object]);
        let rows = objects(&ran);
        let of = |ty: &str| rows.iter().find(|row| row["mdev_type"] == ty).cloned();
        (
            rows.len(),
            of("card-2-64"),
            of("card-any"),
            of("other"),
            of("card-3-16"),
        )
    };
    let full = source(
        "full.json",
        json!({"ports": 2, "depth": 64, "msi": true, "label": "y"}),
    );
    let (count, fixed, any, other, three) = select(&full);
    assert_eq!(count, 3 * 2 + 2);
    // Any value of `label` will do: none are listed. `flow` is off in `self`, so it can be.
    let fixed = fixed.unwrap();
    assert_eq!(
        (&fixed["compatible"], &fixed["changes"]),
        (&json!(true), &json!(null))
    );
    assert_eq!(fixed["name"], object);
    // It tells nothing of a parameter `depth`.
    assert_eq!(any.unwrap()["reasons"][0]["code"], "unknown-parameter");
    assert_eq!(other.unwrap()["reasons"][0]["code"], "other-model");
    assert_eq!(three.unwrap()["reasons"].as_array().unwrap().len(), 2);
    // Whether `msi` can be off there is not told: `self` has it on.
    let (_, fixed, ..) = select(&source(
        "less.json",
        json!({"ports": 2, "depth": 64, "label": "x"}),
    ));
    let reasons = fixed.unwrap()["reasons"].clone();
    assert_eq!(reasons[0]["code"], "off-not-told", "{reasons}");
    assert_eq!(reasons[0]["allowed"], json!([false, true]));
    let text = host.run(&["select", &full, &object]).expect(0);
    let row = format!("yes  {object} card-2-64  (what to change is not told)\n");
    assert!(text.out.contains(&row), "{text:?}");
    // Its `self` is a source.
    let candidate = host.file("candidate.json", info("2"));
    host.run(&["check", &object, &candidate])
        .expect(1)
        .says("label: source has \"x\"");
    host.run(&["check", &full, &object])
        .expect(2)
        .says("candidate of `select`");
}

#[test]
fn a_damaged_object_in_the_july_2020_form_is_told() {
    let host = Host::new();
    let source = two_ports(&host);
    type Damage = fn(&mut Json);
    let damage: [(&str, Damage); 6] = [
        ("without \"self\"", |object| drop(object["self"].take())),
        ("without \"compatible\"", |object| {
            drop(object.as_object_mut().unwrap().remove("compatible"))
        }),
        ("no values are listed for the parameter port", |object| {
            object["compatible"][0]["mdev_type"] = json!("${port}")
        }),
        ("too many types", |object| {
            object["compatible"][0]["params"]["ports"] = json!(["1-4000000000"])
        }),
        ("nothing would do", |object| {
            object["compatible"][0]["params"]["msi"] = json!([])
        }),
        ("is not of type bool", |object| {
            object["compatible"][0]["params"]["msi"] = json!([1])
        }),
    ];
    for (what, change) in damage {
        let mut object = compatible();
        change(&mut object);
        if object["self"].is_null() {
            object.as_object_mut().unwrap().remove("self");
        }
        let ran = host.run_with(&["select", &source, "-"], object.to_string().as_bytes());
        assert_eq!(ran.status, 2, "{what}: {ran:?}");
        assert!(ran.out.contains(what), "{what}: {ran:?}");
    }
}
