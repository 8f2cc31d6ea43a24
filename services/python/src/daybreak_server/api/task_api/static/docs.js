let last = '';
document.addEventListener('click', async (click) => {
  const button = click.target.closest('button[data-path]');
  if (!button) return;
  const out = button.nextElementSibling;
  const path = button.dataset.path.replace('{id}', last || 'submit-a-task-first');
  const options = {method: button.dataset.method, headers: {}};
  if (button.dataset.body) {
    options.body = button.dataset.body; options.headers['Content-Type'] = 'application/json';
  }
  out.hidden = false; out.textContent = '…';
  try {
    const response = await fetch(path, options), text = await response.text();
    let shown = text;
    try {
      const body = JSON.parse(text); shown = JSON.stringify(body, null, 2);
      if (body.object === 'task') last = body.id;
    } catch {}
    out.textContent = response.status + ' ' + response.statusText + '\n' + shown.slice(0, 20000);
  } catch (error) { out.textContent = String(error); }
});
document.querySelectorAll('span.origin').forEach((span) => { span.textContent = location.origin; });
