//! Who the people are whose connections are held, and under which names.

use super::{ASK_DEADLINE, GatewayHandle, ask_error};
use crate::connection::ConnectionView;
use crate::protocol::identifiers::ConnectionId;
use crate::provider::error::TokenError;
use crate::provider::messages::{GetUserInfo, RekeyConnection, Rekeyed};

pub use crate::provider::messages::{NewSubject, UserInfo};

/// What became of a wish to move a connection.
#[derive(Clone, Debug)]
pub enum Moved {
    /// It was moved, and this is it.
    Done(Box<ConnectionView>),
    /// There is none.
    NoConnection,
    /// There is one already where it should go, and it may not be replaced.
    Taken(ConnectionId),
    /// It cannot be moved; why.
    Unfit(String),
}

impl GatewayHandle {
    /// What the provider says of the person whose connection it is (OpenID Connect Core section 5.3).
    ///
    /// # Errors
    /// [`TokenError`], if there is no usable token or the provider gives no fitting answer.
    pub async fn userinfo(&self, id: &ConnectionId) -> Result<UserInfo, TokenError> {
        let message = GetUserInfo { subject: id.subject.clone() };
        let answer = self.provider(&id.profile)?.actor.ask_idempotent(message, ASK_DEADLINE).await;
        answer.map_err(|error| ask_error(&id.profile, error))?
    }

    /// Moves a connection under another subject: after it, one of the two holds its token set, never
    /// both, never none. What is there is replaced only if `replace` says so.
    ///
    /// # Errors
    /// [`TokenError`], if the store fails or others keep changing the connection.
    pub async fn rekey_connection(
        &self,
        id: &ConnectionId,
        to: NewSubject,
        replace: bool,
    ) -> Result<Moved, TokenError> {
        let provider = self.provider(&id.profile)?;
        let message = RekeyConnection { subject: id.subject.clone(), to, replace };
        let answer = provider.actor.ask(message, ASK_DEADLINE).await;
        Ok(match answer.map_err(|error| ask_error(&id.profile, error))?? {
            Rekeyed::Moved(connection) => Moved::Done(Box::new(self.view(&provider, &connection))),
            Rekeyed::NoConnection => Moved::NoConnection,
            Rekeyed::Taken(there) => Moved::Taken(there),
            Rekeyed::Unfit(why) => Moved::Unfit(why),
        })
    }
}
