// The examples name this server's own URL, also behind a proxy.
const own = new URL(".", location.href).href;
for (const code of document.querySelectorAll("pre code")) {
  code.textContent = code.textContent.replaceAll("http://127.0.0.1:8000/", own);
}
