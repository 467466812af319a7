//! Pages of a list: `page` from 1, `page_size` 1 to 200.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// Items on a page unless asked otherwise.
pub const DEFAULT_SIZE: u32 = 50;
/// Most items on a page.
pub const MAX_SIZE: u32 = 200;

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// From 1.
    #[param(minimum = 1, default = 1)]
    pub page: Option<u32>,
    /// 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub page_size: Option<u32>,
}

impl PageQuery {
    /// Checks the numbers.
    ///
    /// # Errors
    /// 400 outside of their ranges.
    pub fn check(&self) -> Result<PageSpan, Problem> {
        let (page, size) = (self.page.unwrap_or(1), self.page_size.unwrap_or(DEFAULT_SIZE));
        if page == 0 {
            return Err(Problem::bad_request("page: counts from 1"));
        }
        if size == 0 || size > MAX_SIZE {
            return Err(Problem::bad_request(format!("page_size: 1 to {MAX_SIZE}")));
        }
        Ok(PageSpan { page, size })
    }
}

/// A checked page.
#[derive(Debug, Clone, Copy)]
pub struct PageSpan {
    page: u32,
    size: u32,
}

impl PageSpan {
    /// Items before it.
    pub fn offset(self) -> i64 {
        i64::from(self.page - 1) * i64::from(self.size)
    }

    /// Items on it, at most.
    pub fn limit(self) -> i64 {
        i64::from(self.size)
    }

    /// The answer.
    pub fn answer<T: ToSchema>(self, items: Vec<T>, total: i64) -> Page<T> {
        let has_more = self.offset() + self.limit() < total;
        Page { items, total, page: self.page, page_size: self.size, has_more }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T: ToSchema> {
    /// The items.
    pub items: Vec<T>,
    /// How many there are on all pages.
    pub total: i64,
    /// This page, from 1.
    pub page: u32,
    /// Items on a page, at most.
    pub page_size: u32,
    /// Whether another page follows.
    pub has_more: bool,
}
