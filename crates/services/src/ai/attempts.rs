//! placeholder
use domain::ai::Provider;
use ports::ai::{CallHold, ProviderCall, ProviderFault, Reply};
use std::time::Duration;
pub struct Attempts {}
pub enum CallFailure {
    Provider { provider: Provider, fault: ProviderFault },
    CircuitOpen { provider: Provider, retry_after: Duration },
}
impl Attempts {
    pub fn is_sandbox(&self, _p: Provider) -> bool {
        true
    }
    pub async fn call(
        &self,
        hold: CallHold,
        calls: &[ProviderCall],
    ) -> Result<(Reply, usize), (CallHold, CallFailure)> {
        std::future::pending::<()>().await;
        let _ = calls;
        Err((hold, CallFailure::CircuitOpen { provider: Provider::OpenAi, retry_after: Duration::ZERO }))
    }
}
