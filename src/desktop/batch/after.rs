//! What an action's request may ask for beside the action: to wait until the screen is still, and a picture then.

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::desktop::Desktop;
use crate::desktop::screenshot::{Picture, PictureRequest};
use crate::desktop::watch::{SettleReply, SettleRequest, Wait};
use crate::error::Result;

/// An action with what is to follow it.
#[derive(Debug, ToSchema)]
pub(in crate::desktop) struct Acting<T> {
    #[serde(flatten)]
    pub(in crate::desktop) request: T,
    #[serde(flatten)]
    pub(in crate::desktop) after: After,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Acting<T> {
    /// One after the other, so that an error can still name the member: flattening forgets it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Value::deserialize(deserializer)?;
        let told = |error: serde_path_to_error::Error<serde_json::Error>| match error.path().to_string() {
            path if path == "." => D::Error::custom(error.into_inner()),
            path => D::Error::custom(format!("{path}: {}", error.into_inner())),
        };
        let after = serde_path_to_error::deserialize(&members).map_err(told)?;
        let request = serde_path_to_error::deserialize(members).map_err(told)?;
        Ok(Self { request, after })
    }
}

/// What is to follow an action.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(in crate::desktop) struct After {
    /// Waits until the screen is still: `true`, or times.
    settle: Option<SettleRequest>,
    /// Replies with a picture: `true`, or the parameters of `/computeruse/screenshot/compressed` as members.
    screenshot: Option<PictureRequest>,
}

/// The same, checked.
#[derive(Debug)]
pub(in crate::desktop) struct Follow {
    settle: Option<Wait>,
    picture: Option<Picture>,
}

/// What followed an action.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::desktop) struct AfterReply {
    /// Only when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    settle: Option<SettleReply>,
    /// Only when it was asked for: the reply of `/computeruse/screenshot/compressed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    screenshot: Option<Value>,
}

impl After {
    /// # Errors
    /// Names what makes no sense.
    pub(in crate::desktop) fn check(self) -> Result<Follow> {
        let settle = self.settle.map(SettleRequest::check).transpose()?.flatten();
        let picture = self.screenshot.map(PictureRequest::check).transpose()?.flatten();
        Ok(Follow { settle, picture })
    }
}

impl Follow {
    /// Does an action and what is to follow it. What the action changes at once counts as a change.
    ///
    /// # Errors
    /// Those of the action, and of what follows it: the action is done then.
    pub(in crate::desktop) async fn after<T>(
        self,
        desktop: &Desktop,
        action: impl Future<Output = Result<T>>,
    ) -> Result<(T, AfterReply)> {
        let watching = match self.settle {
            Some(wait) => Some(desktop.watching(wait).await?),
            None => None,
        };
        let done = action.await?;
        let mut reply = AfterReply::default();
        if let Some(watching) = watching {
            reply.settle = Some(watching.settled().await?.into());
        }
        if let Some(picture) = self.picture {
            reply.screenshot = Some(picture.take(desktop).await?);
        }
        Ok((done, reply))
    }
}
