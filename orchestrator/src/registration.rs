//! `component-registration-request`: joining with a token, and coming back with a certificate.

use bus::{Authentic, Context, Sender};
use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{ComponentRegistrationRequest, ComponentRegistrationResponse};
use proto::topic::Topic;
use service::token::{JoinToken, is_proof_of};
use uuid::Uuid;

use crate::ca;
use crate::core::HEARTBEAT_SECONDS;
use crate::driver::Handle;
use crate::store::{StoreError, TokenRow};

/// Answers a registration, where its sender can hear it.
pub(crate) async fn take(handle: &Handle, message: &Authentic, request: &ComponentRegistrationRequest) {
    let from = message.envelope().from;
    let (topic, outcome) = match message.sender() {
        Sender::Joining { public_key } => (Topic::RegistrationAnswer(from), join(handle, request, *public_key).await),
        Sender::Member { component, component_type } => {
            (Topic::Admin(from), come_back(handle, request, *component, *component_type).await)
        }
    };
    let outcome = outcome.unwrap_or_else(|error| {
        tracing::error!(error = %service::report::Chain(&error), "the store failed");
        Err(Fault::new(FaultCode::Internal, "the orchestrator cannot register anybody at the moment"))
    });
    let context = Context::answering(message);
    let bus = &handle.inner.bus;
    let sent = match outcome {
        Ok(response) => bus.send(&topic, &response, context),
        Err(fault) => {
            tracing::warn!(%from, %fault, "registration refused");
            bus.count_refusal(&fault);
            bus.send(&topic, &fault, context)
        }
    };
    if let Err(error) = sent {
        tracing::error!(%error, "cannot answer a registration");
    }
}

type Outcome = Result<Result<ComponentRegistrationResponse, Fault>, StoreError>;

async fn join(handle: &Handle, request: &ComponentRegistrationRequest, sealed_with: [u8; 32]) -> Outcome {
    let denied = |text: &str| Ok(Err(Fault::new(FaultCode::NotAuthorized, text)));
    if request.component_unique_identifier.is_some() {
        return denied("an id is claimed with its certificate, not with a token");
    }
    if request.component_type == ComponentType::Orchestrator {
        return denied("an orchestrator does not join by token");
    }
    match ca::key_of(&request.certificate_signing_request) {
        Ok(key) if key == sealed_with => {}
        Ok(_) => return denied("the signing request is for another key than the message's"),
        Err(error) => return Ok(Err(Fault::new(FaultCode::Malformed, error.to_string()))),
    }
    let Some(proof) = &request.join_proof else { return denied("joining needs a token's proof") };
    // One answer for every wrong token: a stranger learns nothing about which ids exist.
    let wrong = "the join token is unknown, expired, used up, or for another type of component";
    let Some(mut token) = handle.inner.store.token(&proof.token_id).await? else { return denied(wrong) };
    let is_known = handle.inner.core.lock().await.components().any(|component| component.public_key == sealed_with);
    let is_open = token.expires > Timestamp::now() && (token.uses_left > 0 || is_known);
    if !is_open
        || token.component_type != request.component_type
        || !is_proof_of(&token.secret, &request.certificate_signing_request, proof)
    {
        return denied(wrong);
    }
    let registered = handle
        .act(|core, now| match core.register(request.component_type, &request.component_name, sealed_with, now) {
            Ok((id, actions)) => (Ok(id), actions),
            Err(fault) => (Err(fault), Vec::new()),
        })
        .await?;
    let id = match registered {
        Ok(id) => id,
        Err(fault) => return Ok(Err(fault)),
    };
    if !is_known {
        token.uses_left = token.uses_left.saturating_sub(1);
        handle.inner.store.put_token(&token).await?;
    }
    Ok(response(handle, request, id, request.component_type))
}

async fn come_back(
    handle: &Handle,
    request: &ComponentRegistrationRequest,
    sender: ComponentId,
    component_type: ComponentType,
) -> Outcome {
    let returned = handle.inner.core.lock().await.return_of(sender, request.component_unique_identifier);
    Ok(returned.and_then(|id| response(handle, request, id, component_type)))
}

fn response(
    handle: &Handle,
    request: &ComponentRegistrationRequest,
    id: ComponentId,
    component_type: ComponentType,
) -> Result<ComponentRegistrationResponse, Fault> {
    let now = Timestamp::now();
    let certificate = handle
        .inner
        .ca
        .issue(&request.certificate_signing_request, id, component_type, now)
        .map_err(|error| Fault::new(FaultCode::Malformed, error.to_string()))?;
    Ok(ComponentRegistrationResponse {
        component_unique_identifier: id,
        certificate,
        ca_certificate: handle.inner.ca.pem().to_owned(),
        orchestrator: handle.inner.bus.own(),
        heartbeat_interval_seconds: HEARTBEAT_SECONDS,
        server_time: now,
    })
}

/// Makes a token and keeps it.
pub(crate) async fn create_token(
    handle: &Handle,
    component_type: ComponentType,
    uses: u32,
    ttl_seconds: u64,
) -> Result<String, StoreError> {
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let ttl = SignedDuration::from_secs(i64::try_from(ttl_seconds).unwrap_or(i64::MAX));
    let row = TokenRow {
        id: Uuid::new_v4().simple().to_string(),
        secret: secret.clone(),
        component_type,
        uses_left: uses,
        expires: Timestamp::now().saturating_add(ttl).unwrap_or(Timestamp::MAX),
    };
    handle.inner.store.put_token(&row).await?;
    let token =
        JoinToken { address: handle.address().to_owned(), ca_fingerprint: handle.ca_fingerprint(), id: row.id, secret };
    Ok(token.to_string())
}
