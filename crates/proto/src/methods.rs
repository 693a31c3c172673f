//! What each method needs, read from its options in the descriptors (`keyledger.v1.access`).

use std::sync::LazyLock;

use keyledger_ledger::grant::check_resource;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::token::Token;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value,
};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET)
        .expect("our own descriptors, written at build time")
});

/// The descriptors, for reflection and for tests that walk every method.
pub fn pool() -> &'static DescriptorPool {
    &POOL
}

/// The values of an enum, by its full name, as people write them: in lower case, without the prefix that all have.
/// Panics if there is no such enum: that is a bug of ours.
pub fn short_names(of: &str) -> Vec<(String, i32)> {
    let descriptor = pool().get_enum_by_name(of);
    let descriptor = descriptor.unwrap_or_else(|| panic!("{of} is not in our protos"));
    let zero = descriptor.get_value(0).map(|value| value.name().to_string()).unwrap_or_default();
    let prefix = zero.trim_end_matches("UNSPECIFIED");
    let short =
        |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', "-");
    let named = descriptor.values().filter(|value| value.number() != 0);
    named.map(|value| (short(value.name()), value.number())).collect()
}

/// One method of a service.
#[derive(Clone, Debug)]
pub struct Method {
    /// `/keyledger.v1.KeyService/CreateKey`
    pub path: String,
    /// `KeyService/CreateKey`
    pub name: String,
    /// Empty: any valid key may call.
    pub permission: String,
    /// No token is needed.
    pub open: bool,
    /// The resource as it stands in the option, such as `keys/{key_id}`.
    pub template: String,
    resource: Vec<Part>,
    input: MessageDescriptor,
    /// The number of the field that names a key, if there is one.
    key_field: Option<(u32, Names)>,
}

/// By what a field names a key.
#[derive(Clone, Copy, Debug)]
enum Names {
    Key,
    Token,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    /// `{field}`: one segment.
    Segment(String),
    /// `{field=**}`: a path, or everything.
    Path(String),
}

/// All our methods. Panics if one lacks its option: a server must not start with a method that nobody guards.
pub fn all() -> Vec<Method> {
    let access =
        pool().get_extension_by_name("keyledger.v1.access").expect("options.proto declares it");
    let services = pool().services().filter(|s| s.full_name().starts_with("keyledger."));
    services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| {
            let options = method.options();
            assert!(
                options.has_extension(&access),
                "{} has no (access) option",
                method.full_name()
            );
            let option = options.get_extension(&access);
            let option = option.as_message().expect("the extension is a message");
            let text = |name| match option.get_field_by_name(name).as_deref() {
                Some(Value::String(text)) => text.clone(),
                _ => String::new(),
            };
            let service = method.parent_service();
            Method {
                path: format!("/{}/{}", service.full_name(), method.name()),
                name: format!("{}/{}", service.name(), method.name()),
                permission: text("permission"),
                open: matches!(
                    option.get_field_by_name("open").as_deref(),
                    Some(Value::Bool(true))
                ),
                resource: parse_template(&text("resource")),
                template: text("resource"),
                input: method.input(),
                key_field: key_field(&method.input()),
            }
        })
        .collect()
}

/// All methods that a server guards: ours, and the one by which collectors of OpenTelemetry send log records. That one needs what
/// RecordEvents needs.
pub fn guarded() -> Vec<Method> {
    let mut methods = all();
    let record = methods.iter().find(|m| m.name == "AuditService/RecordEvents");
    let export = Method {
        path: "/opentelemetry.proto.collector.logs.v1.LogsService/Export".into(),
        name: "LogsService/Export".into(),
        ..record.expect("our own descriptors declare it").clone()
    };
    methods.push(export);
    methods
}

fn key_field(input: &MessageDescriptor) -> Option<(u32, Names)> {
    let text = |name: &str| {
        let field = input.get_field_by_name(name)?;
        (field.kind() == Kind::String && !field.is_list()).then(|| field.number())
    };
    let by_id = text("key_id").map(|number| (number, Names::Key));
    by_id.or_else(|| text("token").map(|number| (number, Names::Token)))
}

/// The text of a field of a serialised message: every call is looked at, so nothing else is decoded.
fn text_field(mut bytes: &[u8], wanted: u32) -> Option<&str> {
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).ok()?;
        if number == wanted && wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut bytes).ok()?;
            return std::str::from_utf8(bytes.get(..length.try_into().ok()?)?).ok();
        }
        skip_field(wire_type, number, &mut bytes, DecodeContext::default()).ok()?;
    }
    None
}

impl Method {
    /// The key that a request names: by its id, or by a token of ours.
    pub fn key_id(&self, request: &impl Message) -> Option<KeyId> {
        let (number, names) = self.key_field?;
        let bytes = request.encode_to_vec();
        let text = text_field(&bytes, number)?;
        match names {
            Names::Key => KeyId::parse(text),
            Names::Token => Token::parse(text).ok().map(|token| token.key_id),
        }
    }

    /// The resource of one call: the template with the request's fields filled in. A value that could be taken for more
    /// than one segment, or for a pattern, is replaced by `?`, which no pattern but `*` and `**` matches.
    pub fn resource(&self, request: &impl Message) -> String {
        if let [Part::Text(text)] = self.resource.as_slice() {
            return text.clone();
        }
        let bytes = request.encode_to_vec();
        let message = DynamicMessage::decode(self.input.clone(), bytes.as_slice()).ok();
        let fill = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Segment(name) => {
                field(&message, name).filter(|v| is_plain_segment(v)).unwrap_or("?".into())
            }
            Part::Path(name) => match field(&message, name) {
                Some(path) if path.is_empty() => "**".into(),
                Some(path) if check_resource(&path).is_ok() => path,
                _ => "?".into(),
            },
        };
        self.resource.iter().map(fill).collect()
    }
}

/// Most bytes of what is kept of a request.
const MAX_ASKED: usize = 2_048;

/// What a caller asked, to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The request as protobuf text, cut to a bound, without the people in it.
    pub text: String,
    /// The people whose events were asked for: who acted, or whose key it is.
    pub people: Vec<String>,
}

impl Method {
    /// What a request says, for the record.
    pub fn asked(&self, request: &impl Message) -> Asked {
        let bytes = request.encode_to_vec();
        let Ok(mut message) = DynamicMessage::decode(self.input.clone(), bytes.as_slice()) else {
            return Asked::default();
        };
        let mut people = vec![];
        take_people(&mut message, &mut people);
        let mut text = message.to_text_format();
        let end = text.floor_char_boundary(MAX_ASKED);
        text.truncate(end);
        Asked { text, people }
    }
}

/// Takes the names of people out of a message, wherever an `Actor` or `Owner` stands in it. Ours hold few.
fn take_people(message: &mut DynamicMessage, people: &mut Vec<String>) {
    if ["keyledger.v1.Actor", "keyledger.v1.Owner"].contains(&message.descriptor().full_name()) {
        people.extend(field_of(message, "user").filter(|name| !name.is_empty()));
        message.clear_field_by_name("user");
        return;
    }
    for part in message.fields_mut().filter_map(|(_, value)| value.as_message_mut()) {
        take_people(part, people);
    }
}

fn field_of(message: &DynamicMessage, name: &str) -> Option<String> {
    match message.get_field_by_name(name).as_deref() {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn field(message: &Option<DynamicMessage>, name: &str) -> Option<String> {
    field_of(message.as_ref()?, name)
}

fn is_plain_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn parse_template(template: &str) -> Vec<Part> {
    let mut parts = vec![];
    let mut rest = template;
    while let Some((text, tail)) = rest.split_once('{') {
        let (field, tail) = tail.split_once('}').expect("a template closes its braces");
        parts.push(Part::Text(text.into()));
        parts.push(match field.strip_suffix("=**") {
            Some(field) => Part::Path(field.into()),
            None => Part::Segment(field.into()),
        });
        rest = tail;
    }
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Actor, CreateRoleRequest, EventFilter, GetKeyRequest, ListEventsRequest, Owner,
        VerifyKeyRequest, actor, owner,
    };

    fn method(name: &str) -> Method {
        all().into_iter().find(|m| m.name == name).unwrap()
    }

    #[test]
    fn each_method_says_what_it_needs() {
        assert!(all().len() >= 15);
        assert_eq!(method("KeyService/CreateKey").permission, "keys.create");
        assert_eq!(method("KeyService/WhoAmI").permission, "");
    }

    #[test]
    fn a_request_names_a_key_by_its_id_or_a_token() {
        let token = "klk_0ABJ8yZWbaYQpJnCWGnMMM";
        let id = "018bcfe5-6800-8000-8000-000000000001";
        let get = GetKeyRequest { key_id: id.into(), ..GetKeyRequest::default() };
        assert_eq!(method("KeyService/GetKey").key_id(&get), KeyId::parse(id));
        let verify = VerifyKeyRequest { token: token.into(), ..Default::default() };
        assert_eq!(method("KeyService/VerifyKey").key_id(&verify), None);
        assert_eq!(method("KeyService/WhoAmI").key_id(&crate::WhoAmIRequest {}), None);
    }

    #[test]
    fn a_resource_is_filled_from_the_request() {
        let request = CreateRoleRequest { name: "ops".into(), ..Default::default() };
        assert_eq!(method("KeyService/CreateRole").resource(&request), "roles/ops");
        assert_eq!(method("KeyService/VerifyKey").resource(&GetKeyRequest::default()), "keys");
    }

    #[test]
    fn a_category_is_a_path_and_none_means_all() {
        let list = method("AuditService/ListEvents");
        let request =
            |category: &str| ListEventsRequest { category: category.into(), ..Default::default() };
        assert_eq!(list.resource(&request("")), "logs/**");
        assert_eq!(list.resource(&request("security/login")), "logs/security/login");
        assert_eq!(list.resource(&request("security/*")), "logs/?");
    }

    #[test]
    fn what_was_asked_names_no_person() {
        let actor = Actor { actor: Some(actor::Actor::User("ann@example.com".into())) };
        let owner = Owner { owner: Some(owner::Owner::User("bob@example.com".into())) };
        let filter = EventFilter {
            actor: Some(actor),
            owner: Some(owner),
            action: "login".into(),
            ..Default::default()
        };
        let request = ListEventsRequest { filter: Some(filter), ..Default::default() };
        let asked = method("AuditService/ListEvents").asked(&request);
        assert_eq!(asked.text, r#"filter{actor{},action:"login",owner{}}"#);
        assert_eq!(asked.people, ["ann@example.com", "bob@example.com"]);
        let long = ListEventsRequest { page_token: "ä".repeat(4_096), ..Default::default() };
        assert!(method("AuditService/ListEvents").asked(&long).text.len() <= MAX_ASKED);
    }

    #[test]
    fn a_request_can_not_reach_into_another_resource() {
        for hostile in ["", "*", "**", "a/b", "../x", "ä", "a b"] {
            let request =
                GetKeyRequest { key_id: hostile.into(), as_of: None, include_traces: false };
            let resource = method("KeyService/GetKey").resource(&request);
            assert!(resource == "keys/?" || resource == "keys/..", "{resource}");
        }
    }
}
