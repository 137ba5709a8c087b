const messages = document.querySelector('#messages')
const text = document.querySelector('#text')
const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
const socket = new WebSocket(`${scheme}://${location.host}/ws/${crypto.getRandomValues(new Uint32Array(1))[0]}`)

function show(role, content) {
  const item = document.createElement('li')
  item.className = role
  item.textContent = content
  messages.append(item)
}

socket.addEventListener('message', ({ data }) => {
  const { role, content } = JSON.parse(data)
  show(role, content)
})

document.querySelector('#form').addEventListener('submit', (event) => {
  event.preventDefault()
  if (socket.readyState !== WebSocket.OPEN) return show('error', 'Connexion perdue : rechargez la page.')
  show('user', text.value)
  socket.send(text.value)
  text.value = ''
})

const { version, phase, revision } = await (await fetch('/api/version')).json()
document.querySelector('#version').textContent = `Version ${version} · phase ${phase} · révision ${revision}`
