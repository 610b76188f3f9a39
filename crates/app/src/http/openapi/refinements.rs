//! Refinements: what the document says beyond the types: that exactly one of two fields is given, and what the gateway
//! itself needs of a body in a provider's dialect (the provider checks the rest).

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::schema::{AllOfBuilder, ArrayBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};

const CHAT: &str = "ChatIn";

/// Requires `message` or `messages`, and not both: the other one is absent or null.
pub fn refine_schema(name: &str, schema: &mut RefOr<Schema>) {
    if name != CHAT {
        return;
    }
    let only = |given: &str, kind: Type, other: &str| {
        ObjectBuilder::new()
            .property(given, ObjectBuilder::new().schema_type(kind))
            .property(other, ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null)))
            .required(given)
            .build()
    };
    let whole = std::mem::replace(schema, RefOr::T(ObjectBuilder::new().into()));
    let one_of = OneOfBuilder::new().item(only("message", Type::String, "messages")).item(only(
        "messages",
        Type::Array,
        "message",
    ));
    *schema = RefOr::T(AllOfBuilder::new().item(whole).item(one_of).build().into());
}

/// Sets the body that an operation of a dialect needs.
pub fn refine_dialect(operation: &mut Operation) {
    let schema = match operation.operation_id.as_deref() {
        Some("create_chat_completion" | "count_message_tokens") => conversation(),
        Some("create_message") => {
            let most = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
            conversation().property("max_tokens", most).required("max_tokens")
        }
        Some("create_embeddings") => {
            named_object().property("input", ObjectBuilder::new().schema_type(SchemaType::AnyValue)).required("input")
        }
        // The needed fields depend on the verb.
        Some("call_gemini_model" | "call_gemini_model_stable") => ObjectBuilder::new().schema_type(Type::Object),
        _ => return,
    };
    if let Some(RefOr::T(RequestBody { content, required, .. })) = operation.request_body.as_mut() {
        content.insert("application/json".to_owned(), ContentBuilder::new().schema(Some(schema)).build().into());
        *required = Some(utoipa::openapi::Required::True);
    }
}

fn named_object() -> ObjectBuilder {
    let model =
        ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).description(Some("The model's name."));
    ObjectBuilder::new().schema_type(Type::Object).property("model", model).required("model")
}

fn conversation() -> ObjectBuilder {
    let message = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("role", ObjectBuilder::new().schema_type(Type::String))
        .required("role");
    named_object().property("messages", ArrayBuilder::new().items(message).min_items(Some(1))).required("messages")
}
