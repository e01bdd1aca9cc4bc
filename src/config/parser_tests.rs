use super::*;
use proptest::prelude::*;

struct Nothing;

impl Surroundings for Nothing {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn parse(text: &str) -> Map {
    parse_text(text, &Nothing).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refusal(text: &str) -> String {
    match parse_text(text, &Nothing) {
        Ok(map) => panic!("{text:?} was read as {map:?}"),
        Err(error) => error.to_string(),
    }
}

fn value(text: &str) -> Value {
    parse(&format!("key: {text}\n"))["key"].value.clone()
}

fn plain(map: &Map) -> serde_json::Value {
    fn one(value: &Value) -> serde_json::Value {
        match value {
            Value::String(text) | Value::DateTime(text) => text.as_str().into(),
            Value::Bool(value) => (*value).into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Array(items) => items.iter().map(|node| one(&node.value)).collect(),
            Value::Map(map) => plain(map),
        }
    }
    map.iter()
        .map(|(key, node)| (key.clone(), one(&node.value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn plain_values_are_read_by_their_shape() {
    let string = |text: &str| Value::String(text.to_owned());
    for (text, expected) in [
        ("1", Value::Integer(1)),
        ("-1", Value::Integer(-1)),
        ("1k", Value::Integer(1_000)),
        ("1kb", Value::Integer(1_024)),
        ("1Ki", Value::Integer(1_024)),
        ("1KiB", Value::Integer(1_024)),
        ("2m", Value::Integer(2_000_000)),
        ("64MB", Value::Integer(64 << 20)),
        ("1Gb", Value::Integer(1 << 30)),
        ("1g", Value::Integer(1_000_000_000)),
        ("2TiB", Value::Integer(2 << 40)),
        ("1p", Value::Integer(1_000_000_000_000_000)),
        ("7e", Value::Integer(7_000_000_000_000_000_000)),
        ("-2k", Value::Integer(-2_000)),
        ("0.001", Value::Float(0.001)),
        ("-3.5", Value::Float(-3.5)),
        ("true", Value::Bool(true)),
        ("YES", Value::Bool(true)),
        ("On", Value::Bool(true)),
        ("false", Value::Bool(false)),
        ("no", Value::Bool(false)),
        ("oFF", Value::Bool(false)),
        ("127.0.0.1", string("127.0.0.1")),
        ("127.0.0.1:4222", string("127.0.0.1:4222")),
        ("0.0.0.0:-1", string("0.0.0.0:-1")),
        ("10.0.0.0/8", string("10.0.0.0/8")),
        ("1.5s", string("1.5s")),
        ("3xyz", string("3xyz")),
        ("1kx", string("1kx")),
        ("A.>", string("A.>")),
        ("id:abc", string("id:abc")),
        ("§12§12§12", string("§12§12§12")),
        (
            "nats://user:pass@host:4222",
            string("nats://user:pass@host:4222"),
        ),
        ("'a \"b\" \\n'", string("a \"b\" \\n")),
        (
            "\"a 'b' \\t\\n\\r\\\"\\\\ \\x41\"",
            string("a 'b' \t\n\r\"\\ A"),
        ),
        ("\"\\xc3\\xa9\"", string("é")),
        ("\"true\"", string("true")),
        ("\"1\"", string("1")),
        ("$2a$11$abc/.xyz", string("$2a$11$abc/.xyz")),
        ("$2b$11$abc", string("$2b$11$abc")),
        ("a\\tb", string("a\tb")),
        (
            "2016-05-04T18:53:41Z",
            Value::DateTime("2016-05-04T18:53:41Z".into()),
        ),
        ("(\n one\n two )\n)", string("\n one\n two )\n")),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn keys_and_values_are_parted_by_colon_equals_or_nothing() {
    for text in [
        "a: 1\nb: 2",
        "a = 1\nb = 2",
        "a 1\nb 2",
        "a:1,b:2",
        "a=1;b=2;",
        "a 1 # one\nb 2 // two",
        "# first\n\na:1\n// second\r\nb : 2\r\n",
        "{\"a\": 1, \"b\": 2}",
        "{ 'a' = 1\n b 2 }",
        "\u{feff}a: 1\nb: 2",
        "a\n:1\nb\n2",
        "a: 1\nb: 2\n}\n",
    ] {
        assert_eq!(
            plain(&parse(text)),
            serde_json::json!({"a": 1, "b": 2}),
            "{text:?}"
        );
    }
}

#[test]
fn maps_and_lists_nest_with_commas_or_new_lines() {
    let expected =
        serde_json::json!({"m": {"l": [1, "b", [true]], "n": {"x": 2}}, "e": {}, "f": []});
    for text in [
        "m { l: [1, b, [true]], n { x: 2 } }\ne {}\nf []",
        "m: {\n l: [\n  1\n  b // b\n  [true]\n ]\n n {\n x = 2;\n }\n};\ne: {},\nf = [ # none\n]",
        "{\"m\": {\"l\": [1, \"b\", [true]], \"n\": {\"x\": 2}}, \"e\": {}, \"f\": []}",
        "m {\n  # c\n  l [1,\n b,\n [true],\n]\n\n  n\n  {\n    x 2\n  }\n}\ne {\n}\nf [\n]",
    ] {
        assert_eq!(plain(&parse(text)), expected, "{text:?}");
    }
}

#[test]
fn json_is_read_as_json() {
    let json = serde_json::json!({
        "port": 4222, "host": "127.0.0.1", "debug": false,
        "authorization": {"users": [{"user": "a", "permissions": {"publish": ["a.>", "b"]}}], "timeout": 0.5},
        "jetstream": {"store_dir": "/x", "max_mem_store": 1024}, "empty": []
    });
    assert_eq!(plain(&parse(&json.to_string())), json);
    assert_eq!(
        plain(&parse(&serde_json::to_string_pretty(&json).unwrap())),
        json
    );
}

#[test]
fn a_later_key_wins_over_an_earlier_one() {
    assert_eq!(
        plain(&parse("a: 1\na: {b: 2}\na: x")),
        serde_json::json!({"a": "x"})
    );
}

#[test]
fn variables_are_found_in_the_innermost_map_first() {
    let map = parse("x: 1\na { x: 2, b { c: $x }, d: $x }\ne: $x\nf: [$x, $a]");
    assert_eq!(
        plain(&map),
        serde_json::json!({"x": 1, "a": {"x": 2, "b": {"c": 2}, "d": 2}, "e": 1,
            "f": [1, {"x": 2, "b": {"c": 2}, "d": 2}]})
    );
    assert!(map["x"].used_as_variable && !map["e"].used_as_variable);
}

#[test]
fn errors_name_line_and_column() {
    for (text, place, reason) in [
        ("a: \"x", ":1:4:", "never closed"),
        ("a: 1\nb: {\n c: 1", ":2:4:", "never closed"),
        ("a: [1,\n2", ":1:4:", "never closed"),
        ("a: [1,,2]", ":1:7:", "found ','"),
        ("a:\n1", ":1:3:", "new line"),
        ("\n\na", ":3:1:", "has no value"),
        ("a: .5", ":1:4:", "must start with a digit"),
        ("a: 1.", ":1:6:", "after the '.'"),
        ("a: -x", ":1:5:", "digit after '-'"),
        ("a: 12-5", ":1:8:", "date"),
        ("a: 2016-13-04T18:53:41Z", ":1:24:", "date"),
        ("a: 9223372036854775808", ":1:23:", "out of range"),
        ("a: 9223372036854775807k", ":1:24:", "out of range"),
        ("a: 1kbib", ":1:9:", "size suffix"),
        ("a: \"\\q\"", ":1:6:", "escapes"),
        ("a: \"\\x4\"", ":1:7:", "hexadecimal"),
        ("a: \"\\xff\"", ":1:4:", "UTF-8"),
        ("a: 'x' y", ":1:8:", "end with a new line"),
        ("= 1", ":1:1:", "expected a key"),
        ("a { : 1 }", ":1:5:", "expected a key"),
        ("a { b: }", ":1:8:", "expected a value for 'b'"),
        ("a: $ghost", ":1:4:", "can not be found"),
        ("} a: 1", ":1:3:", "end of the file"),
        ("include [", ":1:9:", "path of an include"),
        ("a: (\nx", ":1:4:", "never closed"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(place), "{text:?}: {refusal}");
        assert!(refusal.contains(reason), "{text:?}: {refusal}");
        assert!(refusal.contains("Parse error"), "{text:?}: {refusal}");
    }
}

#[test]
fn deep_nesting_and_multiplying_variables_are_refused() {
    assert!(refusal(&format!("a: {}", "[".repeat(100_000))).contains("nest deeper"));
    assert!(refusal(&"a {".repeat(100_000)).contains("nest deeper"));
    let mut laughs = String::from("v0: [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let earlier = format!("$v{}, ", level - 1).repeat(10);
        laughs.push_str(&format!("v{level}: [{earlier}]\n"));
    }
    assert!(refusal(&laughs).contains("multiply"));
}

fn mutations() -> u32 {
    std::env::var("FUZZ_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(512)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(mutations()))]

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-c0-9 \t\n\r:=,;{}\\[\\]()'\"\\\\$#/.xkKmMbB-]{0,80}") {
        let _ = parse_text(&text, &Nothing);
    }

    #[test]
    fn no_mutation_of_a_sound_file_makes_it_panic(at in 0usize..400, byte: u8, cut in 0usize..40) {
        let sound = "port: 4222 # c\nserver_name = \"n\\x41\"\njetstream { store_dir: '/x', max_mem: 64MB }\n\
            authorization {\n users [ {user: a, password: $2a$11$abc}\n {user: b, permissions: {publish: [\"a.>\"]}} ]\n\
            timeout: 0.5 }\nSIZE: 1k\nmax_payload: $SIZE; when: 2016-05-04T18:53:41Z\nbig (\nx\n)\ninclude 'x.conf'\n";
        let mut bytes = sound.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.drain(at..(at + cut).min(bytes.len()));
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = super::super::options::Options::from_text(&text, &Nothing);
        }
    }
}
