//! Owns the trial of a chat template: whether it comes to an end at all.
//!
//! An engine renders a model's template when it loads it and for each request; one with loops of
//! 10⁹ turns would keep it busy for ever. A trial run with limited fuel finds those. What the trial
//! does not understand it lets pass: the engine has its own template language and says so itself.

use minijinja::{Environment, ErrorKind, context};

/// Steps that a template may take for a short conversation; real ones take some thousands.
const FUEL: u64 = 1_000_000;
/// The longest template, in bytes; real ones have up to 30 kB.
const MAX_TEMPLATE: usize = 1 << 20;

/// Why a template is refused, if it is.
pub(crate) fn fault(template: &str) -> Option<String> {
    if template.len() > MAX_TEMPLATE {
        return Some(format!("its chat template has {} bytes, the limit is {MAX_TEMPLATE}", template.len()));
    }
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    let parsed = environment.template_from_str(template).ok()?;
    let values = context! {
        messages => [context! { role => "user", content => "Hello" }],
        tools => Vec::<String>::new(),
        add_generation_prompt => true,
        bos_token => "<s>",
        eos_token => "</s>",
    };
    match parsed.render(values) {
        Err(error) if error.kind() == ErrorKind::OutOfFuel => {
            Some(format!("its chat template does not come to an end within {FUEL} steps"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn endless_templates_are_found() {
        let nested = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";
        assert!(fault(nested).unwrap().contains("does not come to an end"));
    }

    #[test]
    fn usual_and_unknown_templates_pass() {
        let chatml =
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}";
        assert_eq!(fault(chatml), None);
        assert_eq!(fault("{% for x in %}"), None);
        assert_eq!(fault("{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}"), None);
    }
}
