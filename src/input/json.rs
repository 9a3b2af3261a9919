//! JSON, with messages in the words of this program.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::problem::DocumentError;
use super::yaml;

/// Reads the only value of `text`; `file` is what messages call it.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, DocumentError> {
    serde_json::from_str(text).map_err(|error| explain::<T>(file, text, &error))
}

/// Reads the values of `text`, one after another.
pub fn documents<T: DeserializeOwned>(file: &str, text: &str) -> Result<Vec<T>, DocumentError> {
    let values = serde_json::Deserializer::from_str(text).into_iter();
    values.collect::<Result<_, _>>().map_err(|error| explain::<T>(file, text, &error))
}

fn explain<T: DeserializeOwned>(file: &str, text: &str, error: &serde_json::Error) -> DocumentError {
    if text.trim().is_empty() {
        return DocumentError::new(file, 0, "is empty");
    }
    let what = match error.classify() {
        Category::Eof => "the JSON ends in the middle; the file was cut off".to_owned(),
        Category::Syntax | Category::Io => {
            format!("this is not JSON, from column {} on", error.column())
        }
        // YAML has JSON in it, and its reader knows the fields.
        Category::Data => match yaml::parse::<T>(file, text) {
            Err(error) => return error,
            Ok(_) => format!("the value that ends in column {} is not one that can be here", error.column()),
        },
    };
    DocumentError::new(file, error.line().max(1), what)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[expect(dead_code, reason = "only what is wrong with it is looked at")]
        size: u32,
    }

    #[test]
    fn what_is_wrong_with_json_is_said_with_its_line() {
        for (text, expected) in [
            ("", "x.json is empty"),
            ("{\n \"size\": 1", "x.json, line 2: the JSON ends in the middle; the file was cut off"),
            ("{\n size: 1}", "x.json, line 2: this is not JSON, from column 2 on"),
            ("{\n \"size\": \"1\"}", "x.json, line 2: `size` is text, and a whole number is needed"),
            ("{\n}", "x.json, line 1: `size` is missing"),
        ] {
            assert_eq!(parse::<Sample>("x.json", text).unwrap_err().to_string(), expected);
        }
    }
}
