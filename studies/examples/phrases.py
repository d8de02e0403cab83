"""The phrases that help-desk tickets are put together from.

Every entry lists alternatives; ``{name}`` inside one stands for an alternative of that entry.
"""

REQUESTS: dict[str, tuple[str, ...]] = {
    "login": (
        "{i_cannot} {get_in} {on_device}",
        "{on_device} the page {rejects} my {credential}",
        "my {credential} is {rejected} {since}, although it is correct",
        "it says my {account} is locked, please unlock it",
        "I am thrown out of my {account} {again_and_again}",
        "the code for the second step of signing in never arrives {on_device}",
        "I type my {credential} and {land_back} on the start page",
        "please let me back into my {account}, it {rejects} me {since}",
    ),
    "password": (
        "please send me {a_new} password",
        "I {forgot} my password and need {a_new} one",
        "the {link} to set {a_new} password {is_dead}",
        "{how_do_i} change the password of my {account}?",
        "I asked for {a_new} password {since} and no {link} came",
        "your {link} {is_dead}, so my old password still stands",
        "I want to choose {a_new} password for my {account}",
        "the page does not accept {a_new} password that I pick, it calls it too {weak}",
    ),
    "refund": (
        "I want my {money} back",
        "please pay back the {amount} for the {thing}",
        "I sent the {thing} back and still wait for my {money}",
        "you {charged} me twice, {return_it}",
        "the {thing} came {broken}, {return_it}",
        "you {charged} {amount} too much, {return_it}",
        "when do I get the {amount} back for the {thing}?",
        "the order was called off, so {return_it}",
    ),
    "invoice": (
        "I need a copy of the {bill} for the {thing}",
        "what does the {amount} on the {bill} stand for?",
        "you {charged} {amount}, please explain the {bill}",
        "our {company_fact} is missing on the {bill}",
        "the {bill} shows the wrong {company_fact}, please correct it",
        "why does the {bill} say {amount} when the {thing} costs less?",
        "{how_do_i} download the {bill} for last {period}?",
        "you {charged} me twice, which {bill} is the right one?",
    ),
    "delivery": (
        "where is my {thing}?",
        "the {parcel} has not {arrived} {since}",
        "the tracking page has shown the same {place} {since}",
        "when will the {thing} be {handed_over}?",
        "the {parcel} went to the wrong {place}, please send it on",
        "the driver says the {parcel} was {handed_over}, but nobody here has it",
        "please tell me the day on which the {parcel} comes",
        "can the {parcel} go to another {place} instead?",
    ),
    "cancel": (
        "please {end} my {plan}",
        "I do not want to {renew} my {plan}",
        "{how_do_i} {end} the {plan} before it {renews}?",
        "we no longer need the {plan}, {end} it at the end of the {period}",
        "take me off the {plan}, I {moved_on}",
        "I {moved_on}, so {end} my {plan}",
        "the button to {end} the {plan} is greyed out, do it for me",
    ),
    "bug": (
        "{feature} {fails} {on_device}",
        "since the update {feature} {fails}",
        "every time I open {feature} the app {fails}",
        "{feature} shows {odd_sign} instead of my {content}",
        "the app {fails} when I save my {content}",
        "I lost my {content} because {feature} {fails}",
    ),
    "wish": (
        "it would be {nice} to have {addition}",
        "could you add {addition} to {feature}?",
        "I am missing {addition} in {feature}",
        "are there plans for {addition}?",
        "other tools offer {addition}, please build that too",
        "my team would love {addition}",
    ),
}
"""What each class asks for; this phrase alone decides the label."""

AMBIGUOUS: tuple[tuple[str, str, str], ...] = (
    ("login", "password", "my password does not work any more"),
    ("login", "password", "I have trouble with my password {on_device}"),
    ("refund", "invoice", "there is something wrong with the {amount} you {charged}"),
    ("refund", "invoice", "you {charged} {amount} for the {thing}, that is not right"),
    ("bug", "login", "the app shows {odd_sign} when I start it {on_device}"),
    ("delivery", "refund", "the {thing} never came and I paid {amount}"),
)
"""(usual label, other label, request): even people disagree about these."""

PAST: tuple[str, ...] = (
    "last {period} I wrote about {past_topic}, that is settled",
    "this is not about {past_topic}, you solved that one",
    "your colleague already helped me with {past_topic}",
    "thank you for your answer about {past_topic}",
    "> you wrote: we are glad that we could help with {past_topic}",
    "before you ask, {past_topic} has been dealt with",
)
"""Old matters that a reader has to see past: they name another class's things."""

SMALL_TALK: tuple[str, ...] = (
    "I have been a customer for {number} years and was always happy",
    "I tried to call you {number} times today, but the line was busy",
    "I hope this reaches the right team, the form did not offer a fitting topic",
    "I am writing from my phone on the train, so please forgive the short style",
    "your chat told me to write a mail with all the details instead",
    "we are a small {business} with {number} people and rely on you every day",
    "my customer number is {digits}{digits}, and the last contact was with {person}",
    "I looked through the help pages and the forum and found nothing that fits",
    "{person} from your team asked me to describe it once more in my own words",
    "as it is the end of the {period} this is rather urgent for our {business}",
    "I attach a picture, although it does not show very much",
)

GREETINGS: tuple[str, ...] = (
    "hello",
    "hi",
    "hi there",
    "dear team",
    "good morning",
    "hello {person}",
)
CLOSINGS: tuple[str, ...] = (
    "thanks",
    "thank you",
    "best, {person}",
    "regards, {person}",
    "please answer soon",
    "I look forward to your reply, {person}",
    "sent from my phone",
)

PARTS: dict[str, tuple[str, ...]] = {
    "a_new": ("a new", "a fresh", "another", "a different"),
    "account": ("account", "profile", "user account", "workspace"),
    "addition": (
        *("a dark theme", "an offline mode", "keyboard shortcuts", "a calendar view"),
        *("shared folders", "an export to spreadsheets", "voice notes", "more colours"),
    ),
    "again_and_again": ("again and again", "every few minutes", "after one click", "all the time"),
    "amount": ("{number} euros", "{digits} euros", "{digits} dollars", "sum", "amount"),
    "arrived": ("arrived", "come", "been {handed_over}", "left the {place}"),
    "bill": ("invoice", "bill", "receipt", "statement"),
    "broken": ("broken", "scratched", "in the wrong size", "with a crack"),
    "business": ("shop", "office", "workshop", "school", "practice"),
    "charged": ("charged", "billed", "debited"),
    "company_fact": ("tax number", "company name", "address", "order number", "cost centre"),
    "content": ("notes", "photos", "drafts", "entries", "files"),
    "credential": ("password", "user name", "login", "code", "fingerprint"),
    "digits": tuple(str(n) for n in range(13, 98, 4)),
    "end": ("cancel", "end", "terminate"),
    "fails": ("crashes", "freezes", "hangs", "closes itself", "stays empty", "turns black"),
    "feature": (
        *("the search", "the editor", "the report page", "the photo upload"),
        *("the printer menu", "the map", "the inbox", "the home screen"),
    ),
    "forgot": ("forgot", "lost", "no longer know", "cannot remember"),
    "get_in": ("sign in", "log in", "get into my {account}", "log on", "open my {account}"),
    "how_do_i": ("how do I", "how can I", "where do I", "what must I do to"),
    "i_cannot": ("I cannot", "I am not able to", "I fail to", "nobody here can"),
    "handed_over": ("delivered", "handed over", "dropped off", "left at the {place}"),
    "is_dead": ("has expired", "is dead", "leads nowhere", "does not open", "never came"),
    "land_back": ("land back", "end up again", "find myself"),
    "link": ("link", "mail", "reset link", "reset mail"),
    "money": ("money", "payment", "deposit", "{amount}"),
    "moved_on": ("switched to another provider", "use it too rarely", "closed the {business}"),
    "nice": ("nice", "great", "useful", "a relief"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "odd_sign": ("an error", "strange signs", "a blank page", "error {digits}", "a grey box"),
    "on_device": (
        *("on my phone", "on the tablet", "at work", "on my new laptop"),
        *("in the browser", "from home", "in the app", "on the website"),
    ),
    "parcel": ("parcel", "package", "shipment", "order", "{thing}"),
    "past_topic": (
        *("my password", "a login that failed", "the locked {account}", "a refund"),
        *("my money back", "the {bill}", "the wrong {company_fact}", "a late {parcel}"),
        *("the tracking page", "cancelling the {plan}", "{feature} that crashed", "{addition}"),
    ),
    "period": ("month", "week", "quarter", "year"),
    "person": ("Anna", "Ben", "Chris", "Dana", "Eric", "Fatima", "Georg", "Hana", "Ines", "Jon"),
    "place": ("address", "depot", "branch", "street", "neighbour"),
    "plan": ("subscription", "plan", "membership", "yearly plan"),
    "rejected": ("rejected", "refused", "not accepted", "called wrong"),
    "rejects": ("rejects", "refuses", "does not accept", "will not take"),
    "renew": ("renew", "extend", "keep", "continue"),
    "renews": ("renews", "starts again", "is extended"),
    "return_it": (
        *("please return the {amount}", "I would like the {money} back", "send the {money} back"),
        *("please reverse it", "put the {amount} back on my card"),
    ),
    "since": ("since {day}", "for {number} days", "since last {period}", "for a {period} now"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "yesterday"),
    "thing": (
        *("headphones", "desk lamp", "keyboard", "backpack", "coffee machine", "jacket"),
        *("office chair", "monitor", "running shoes", "phone case"),
    ),
    "weak": ("weak", "short", "similar to the last one", "simple"),
}
